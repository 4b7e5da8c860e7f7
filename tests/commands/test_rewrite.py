"""`cryptomnesia rewrite`, as its users meet it: what it says, what it writes, what it exits with."""

import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from rich.console import Console

from cryptomnesia import demo
from cryptomnesia.adapters import to_denoiser
from cryptomnesia.cli import run
from cryptomnesia.commands.changes import show
from cryptomnesia.commands.rewrite_cases import Case
from cryptomnesia.commands.sampling import Sampler
from cryptomnesia.demo.captions import select
from cryptomnesia.errors import InputError, NonFiniteError
from cryptomnesia.guard import Guard
from cryptomnesia.mitigation.result import Mended

from ..helpers import pipelines
from ..helpers.commands import caller
from ..helpers.markup import parsed
from ..helpers.mended import mitigation, report

BENIGN = [f"{a}{b} {b}{c}" for a in "abcde" for b in "fghij" for c in "klmno"]
TINY = ("-m", "model", "-c", "model.calibration.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A place with a tiny model, its calibration, and a word list of its alphabet."""
    place = tmp_path_factory.mktemp("rewrite")
    pipelines.build("sd1").save_pretrained(place / "model")
    pipelines.build("flux-guided").save_pretrained(place / "distilled")
    (place / "benign.txt").write_text("\n".join(BENIGN))
    (place / "words.txt").write_text("# mine\nxx\nyy\nzz\n")
    arguments = ["calibrate", "-m", place / "model", "-p", place / "benign.txt", "-o", place / "model.calibration.json"]
    assert run([str(a) for a in [*arguments, "--draws", 2]]) == 0
    return place


@pytest.fixture(scope="module")
def built_in():
    return demo.load_demo()


@pytest.fixture(scope="module")
def guard(built_in):
    return Guard(built_in, demo.demo_calibration())


@pytest.fixture(scope="module")
def memorized(guard):
    """A caption that the built-in model reproduces the training image of, and that is found."""
    return next(
        c.text for c in select("verbatim", "eval") if guard.check(c.text, draws=guard.calibration.draws).memorized
    )


@pytest.fixture(scope="module")
def clear(guard):
    texts = [c.text for c in select("general", "eval")]
    return next(text for text in texts if guard.check(text, draws=guard.calibration.draws).verdict == "clear")


@pytest.fixture
def command(folder, built_in, monkeypatch, capsys):
    """command(*arguments) -> exit code, stdout, stderr of `cryptomnesia rewrite`."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cryptomnesia.demo.load_demo", lambda: built_in)
    return caller(capsys, "rewrite")


# --- what it does ---


def test_a_clear_prompt_is_left_alone(command, clear):
    code, out, err = command("--prompt", clear)
    assert (code, err) == (0, "")
    assert "✓ clear" in out and clear in out and "Not changed" in out


def test_a_memorized_prompt_is_mitigated_and_shown_beside_the_new_one(command, memorized):
    code, out, err = command("--prompt", memorized)
    assert err == ""
    rows = {line.split()[0]: line for line in out.splitlines() if line.strip()}
    assert "▲ likely memorized" in out and "p-value" in out and "copied" not in out
    if code == 0:
        assert memorized in rows["before"] and memorized not in rows["after"]
        assert "significance" in rows["word"] and "guidance similarity" in out and "Mitigated:" in out
    else:
        assert code == 3 and memorized in rows["prompt"] and "Not mitigated:" in out
    assert "rows asked of the network" in out


@pytest.mark.parametrize("method", ["rewrite", "embed", "attenuate", "reseed"])
def test_page_and_json(command, tmp_path, method, memorized, clear):
    out = tmp_path / "deep" / "er"
    arguments = ("-p", memorized, clear, "--method", method, "--out", out, "--images", 2, "--steps", 3, "--json")
    code, text, err = command(*arguments)
    assert err == "" and sorted(file.name for file in out.iterdir()) == ["index.html", "report.json"]
    document = json.loads(text)
    assert json.loads((out / "report.json").read_text()) == document
    assert document["files"] == {"page": str(out / "index.html"), "report": str(out / "report.json")}
    first, second = document["prompts"]
    held = first["mitigation"]["held"]
    assert code == (0 if held else 3)
    assert first["report"]["verdict"] == "memorized" and first["mitigation"]["method"] == document["method"] == method
    assert second["report"]["prompt"] == clear and second["mitigation"] is None
    assert first["images"]["before"]["from"] == ["seed 0", "seed 1"] and second["images"]["before"] is None
    found = parsed((out / "index.html").read_text(encoding="utf-8"))
    sides = 1 if method in ("rewrite", "attenuate") and not held else 2
    assert found.seen.count("img") == 2 * sides and found.seen.count("article") == 2


def test_reports_are_repeatable(command, memorized):
    first, second = (command(memorized, "--seed", 5, "--json")[1] for _ in range(2))
    assert first == second
    assert json.loads(first)["prompts"][0]["report"]["seed"] == "5" and json.loads(first)["files"] == {}


def test_another_model_another_word_list(command, folder):
    code, out, err = command(*TINY, "ab cd ef", "--always", "--words", "words.txt", "--json")
    assert err == ""
    about = json.loads(out)["prompts"][0]["mitigation"]
    assert about["original"] == "ab cd ef" and code == (0 if about["held"] else 3)
    assert {change["became"] for change in about["words"]} <= {"", "ab", "cd", "ef", "xx", "yy", "zz"}


def test_the_calibrated_number_of_draws_and_the_alpha_asked_for(command):
    _, out, _ = command(*TINY, "ab cd", "--alpha", 0.5, "--json")
    found = json.loads(out)
    assert found["alpha"] == 0.5 and found["prompts"][0]["report"]["draws"] == 2


def test_what_did_not_hold_exits_3(command, monkeypatch, tmp_path):
    mitigate = Guard.mitigate

    def failing(self, *arguments, **options):
        about = mitigate(self, *arguments, **options).mitigation
        return Mended(replace(about, held=False, reason="no edit passed", rewritten=about.original, words=[]))

    monkeypatch.setattr(Guard, "mitigate", failing)
    code, out, _ = command(*TINY, "ab cd", "--always", "-o", tmp_path, "--images", 1, "--steps", 1)
    assert code == 3 and "Not mitigated: no edit passed. The prompt stays as it was." in out
    assert parsed((tmp_path / "index.html").read_text(encoding="utf-8")).seen.count("img") == 1


def test_brackets_in_a_prompt_are_no_markup(command):
    _, out, _ = command(*TINY, "a [red] cat", "--always")
    assert "a [red] cat" in out


def test_words_stand_out_on_a_terminal():
    stream = io.StringIO()
    about = mitigation(original="a red cat", rewritten="a cat today")
    show(Console(file=stream, force_terminal=True, width=60, color_system="standard"), Case(report("a red cat"), about))
    assert "\x1b[1;9;31mred\x1b[0m" in stream.getvalue() and "\x1b[1;4;32mtoday\x1b[0m" in stream.getvalue()
    assert "no longer pulls" in stream.getvalue()  # folded, not cut


# --- what it refuses ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "no prompt: give one as --prompt"),
        (("--prompt", "  "), "an empty prompt"),
        (("--prompt", "a", ""), "an empty prompt"),
        (("a", "--method", "erase"), "--method"),
        (("a", "--words", "missing.txt"), "the word list missing.txt cannot be read"),
        (("a", "--words", "."), "the word list . cannot be read"),
        (("a", "--words", "words.txt", "--method", "embed"), "--words is for --method rewrite"),
        (("a", "--images", "0", "-o", "page"), "--images"),
        (("a", "--steps", "0", "-o", "page"), "--steps"),
        (("a", "--guidance", "inf", "-o", "page"), "--guidance is a number"),
        (("a", "--images", "2"), "say where to put it with --out"),
        (("a", "--out", "words.txt"), "a file is in the way"),
        (("a", "--out", "words.txt/page"), "a file is in the way"),
        (("a", "--alpha", "2"), "between 0 and 1"),
        (("a", "--alpha", "1e-6"), "out of reach"),
        (("a", "--height", "17"), "height 17"),
        (("a", "--height", "32"), "another latent size"),
        (("a", "-m", "nowhere"), "nowhere does not exist"),
        (("a", "-m", "model"), "cryptomnesia calibrate --model model"),
        (("a", "-m", "model", "-c", "missing.json"), "missing.json cannot be read"),
        (("a", "-m", "distilled"), "cryptomnesia calibrate"),
        (("a", "-m", "distilled", "-c", "model.calibration.json"), "another model"),
    ],
)
def test_bad_input_costs_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("cryptomnesia: ") and err.count("\n") == 1 and "Traceback" not in err
    assert message in err


def test_a_question_without_meaning_costs_one_line(command, monkeypatch):
    check = Guard.check
    monkeypatch.setattr(
        Guard, "check", lambda *a, **o: replace(check(*a, **o), verdict="not applicable", reason="it is distilled")
    )
    assert command(*TINY, "a", "--always") == (5, "", "cryptomnesia: it is distilled\n")


def test_ctrl_c_leaves_nothing_half_written(command, monkeypatch, tmp_path):
    def stopped(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Sampler, "before", stopped)
    assert command(*TINY, "a", "--always", "-o", tmp_path)[0] == 130
    assert list(tmp_path.iterdir()) == []


# --- how it samples ---


def sampler(family, **options):
    denoiser = to_denoiser(pipelines.build(family))
    return Sampler(denoiser, denoiser.latent_shape(16, 16), **({"count": 2, "seed": 7, "steps": 2} | options))


def advanced(sample, *arguments):
    """What sampling returns, and the steps it reported: each once, the last when all is done."""
    steps = []
    found = sample(*arguments, lambda *told: steps.append(told))
    assert steps == sorted(set(steps)) and steps[-1][0] == steps[-1][1]
    return found, steps[-1][0]


@pytest.mark.parametrize(
    ("family", "guidance"),
    [
        ("sd1", None),
        ("sd2", 1.0),
        ("sdxl", 4.0),
        ("sd3", None),
        ("flux", None),
        ("flux", 3.0),
        ("pixart", None),
        ("pixart-sigma", 3.0),
    ],
)
def test_every_family_can_be_sampled_in_every_way(family, guidance):
    """Nothing changed: its own words, embedding, or noise lead to the same images."""
    own = sampler(family, guidance=guidance)
    state = torch.random.get_rng_state()
    before, steps = advanced(own.before, "a cat")
    assert before.images.shape == (2, 16, 16, 3) and before.images.dtype == np.uint8 and steps == 4
    assert not np.array_equal(before.images[0], before.images[1])
    shape = own.denoiser.latent_shape(16, 16)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(7))
    ways = {
        "rewrite": Mended(mitigation("rewrite", rewritten="a cat"), condition=own.denoiser.encode("a cat")),
        "embed": Mended(mitigation("embed"), condition=own.denoiser.encode("a cat")),
        "reseed": Mended(mitigation("reseed"), noise=noise),
    }
    after = None
    for method, mended in ways.items():
        after, steps = advanced(own.after, "a cat", mended)
        assert steps == 4 and own.sides(mended) == 2
        same = slice(0, 1 if method == "reseed" else 2)
        assert np.abs(after.images[same].astype(int) - before.images[same]).max() <= 2, method
    assert after is not None
    assert after.starts == ["chosen noise", "close to it"] and not after.independent
    other, _ = advanced(own.after, "a cat", replace(ways["rewrite"], mitigation=mitigation(rewritten="zzz yyy")))
    assert not np.array_equal(other.images, before.images)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_rewriting_that_was_not_found_is_not_sampled():
    own, mended = sampler("sd1"), Mended(mitigation(held=False))
    assert own.after("a", mended) is None and own.sides(mended) == 1


def test_seeds_wrap_around_and_settings_are_told():
    own = sampler("sd1", seed=2**64 - 1, guidance=3.5)
    assert own.seeds == [2**64 - 1, 0]
    assert "DDIMScheduler, 2 steps, guidance 3.5" in own.settings and "16x16 pixels" in own.settings
    assert sampler("sd1", steps=None).steps == 50


def test_pipelines_that_refuse_or_fail_say_so():
    from diffusers import AutoPipelineForImage2Image

    image_to_image = to_denoiser(AutoPipelineForImage2Image.from_pipe(pipelines.build("sd1")))
    with pytest.raises(InputError, match="starts from an image"):
        Sampler(image_to_image, (4, 8, 8), count=1, seed=0)
    own = sampler("sd1", steps=1001)
    with pytest.raises(InputError, match="refuses to sample"):
        own.before("a")
    own = sampler("sd1")
    own.denoiser.pipe.unet.conv_out.bias.data.fill_(torch.nan)
    with pytest.raises(NonFiniteError):
        own.before("a")
