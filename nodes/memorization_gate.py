"""Node: lets a branch of the workflow run, or not."""

from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from .values import CATEGORY, Report, described

BLOCK, STRICT, PASS = "block if memorized", "block unless clear", "pass with a warning"


class MemorizationGate(io.ComfyNode):
    """Passes anything on unless the report speaks against it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        anything = io.MatchType.Template("anything")
        return io.Schema(
            node_id="CryptomnesiaMemorizationGate",
            display_name="Memorization Gate",
            category=CATEGORY,
            description="Put it on the way of the conditioning (or of any other input): when the report says "
            "memorized, nothing behind it runs, and the interface says why.",
            search_aliases=["cryptomnesia", "block", "stop", "guard"],
            inputs=[
                io.MatchType.Input("value", template=anything, tooltip="What to pass on, e.g. the conditioning."),
                Report.Input("report", tooltip="From Memorization Check, Rewrite Prompt or Mitigate Conditioning."),
                io.Combo.Input(
                    "policy",
                    options=[BLOCK, STRICT, PASS],
                    tooltip="block unless clear: also stops where there is no verdict, for want of a calibration, say.",
                ),
            ],
            outputs=[
                io.MatchType.Output(template=anything, display_name="value", tooltip="The same, if it may pass."),
                io.String.Output(display_name="text", tooltip="The report in plain words; comes, stopped or not."),
            ],
        )

    @classmethod
    def execute(cls, value: Any, report: dict[str, Any], policy: str) -> io.NodeOutput:
        verdict, text = report["verdict"], described(report)
        blocked = verdict == "memorized" if policy == BLOCK else policy == STRICT and verdict != "clear"
        if not blocked:
            return io.NodeOutput(value, text)
        stopped = f"Cryptomnesia stopped this branch ({policy}). {text}"
        return io.NodeOutput(ExecutionBlocker(stopped), stopped)  # only the value stops: the text can still be shown


NODE = MemorizationGate
