"""Node: lets a branch of the workflow run, or not."""

import logging
from typing import Any

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from .shown import on_node, state
from .values import CATEGORY, Report, described

BLOCK, STRICT, PASS = "block if memorized", "block unless clear", "pass with a warning"
EMPTY = "nothing came in to pass on: is the node before muted? Bypassed, it would pass on what it got"
NOTHING: Any = object()  # no value came in; None may be one
UNCHECKED = "nothing was checked: no report came in"


class MemorizationGate(io.ComfyNode):
    """Passes anything on unless the report speaks against it. What it stops is skipped, and is no error."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        anything = io.MatchType.Template("anything")
        return io.Schema(
            node_id="CryptomnesiaMemorizationGate",
            display_name="Memorization Gate",
            category=CATEGORY,
            description="Put it in the way of the conditioning (or of any other input): when the report says "
            "memorized, nothing behind it runs, and the gate says why.",
            has_intermediate_output=True,  # what it shows is told again where ComfyUI remembers the result
            search_aliases=["cryptomnesia", "block", "stop", "guard"],
            inputs=[
                # all optional: so the workflow runs where the node before is muted, and inputs keep their order
                io.MatchType.Input(
                    "value", template=anything, optional=True, tooltip="What to pass on, e.g. the conditioning."
                ),
                Report.Input(
                    "report",
                    optional=True,
                    tooltip="From Memorization Check, Rewrite Prompt or Mitigate Conditioning. Without one, nothing "
                    "was checked: only 'block unless clear' stops then.",
                ),
                io.Combo.Input(
                    "policy",
                    options=[BLOCK, STRICT, PASS],
                    optional=True,
                    tooltip="block unless clear: also stops where there is no verdict, for want of a calibration, say.",
                ),
            ],
            outputs=[
                io.MatchType.Output(template=anything, display_name="value", tooltip="The same, if it may pass."),
                io.String.Output(display_name="text", tooltip="The report in plain words; comes, stopped or not."),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, value: Any = NOTHING, policy: str = BLOCK, report: dict[str, Any] | None = None) -> io.NodeOutput:
        if value is NOTHING:
            _show(cls, EMPTY)
            shown = on_node(state("stopped", verdict=None, p_value=None, reason=EMPTY), EMPTY)
            return io.NodeOutput(ExecutionBlocker(None), EMPTY, ui=shown)
        verdict = None if report is None else report["verdict"]
        text = UNCHECKED if report is None else described(report)
        said = UNCHECKED if report is None else described(report, words=False)
        blocked = verdict == "memorized" if policy == BLOCK else policy == STRICT and verdict != "clear"
        if blocked:
            text, said = (f"Cryptomnesia stopped this branch ({policy}). {known}" for known in (text, said))
            logging.warning("%s", said)
        _show(cls, said)
        # without a message of its own a blocker skips what hangs on it; with one, ComfyUI reports a failure there
        facts = {"verdict": verdict, "p_value": None if report is None else report["p_value"]}
        shown = on_node(state("stopped" if blocked else "passed", **facts), said)
        return io.NodeOutput(ExecutionBlocker(None) if blocked else value, text, ui=shown)


def _show(node: Any, text: str) -> None:
    """Shows a text on the node itself, in place of what it showed before; without words of prompts, which ComfyUI would
    make links of."""
    from server import PromptServer

    if node.hidden is not None:
        PromptServer.instance.send_progress_text(text, node.hidden.unique_id)


NODE = MemorizationGate
