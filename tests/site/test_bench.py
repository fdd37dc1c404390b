"""The benchmarks: their statistics, their judgement, and that they run."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import __main__ as bench
from bench import floors, harness, models, report
from bench.harness import Setting, ahead, compared, distance, near, quickest, spread
from bench.models import cut, frozen, images, resnet18

QUICK = Setting(quick=True, rounds=2)


class Clock:
    """Time that passes as work says, in place of the `time` module."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def work(self, seconds: float, answer: float = 1.0) -> Any:
        def call() -> torch.Tensor:
            self.now += seconds
            return torch.full((2,), answer)

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(harness, "time", clock)
    return clock


def test_the_spread_is_the_median_and_the_middle_half() -> None:
    assert spread([5.0, 1.0, 4.0, 2.0, 3.0]) == {"median": 3.0, "low": 2.0, "high": 4.0}
    assert spread([7.0]) == {"median": 7.0, "low": 7.0, "high": 7.0}


def test_ratios_are_the_peers_over_ours_and_ours_over_the_floors(clock: Clock) -> None:
    work = {"attrfn": clock.work(2.0), "captum": clock.work(3.0), "floor": clock.work(1.0)}
    row = compared(Setting(rounds=3), "work", work, ahead(1.4), ahead(1.6), near(2.1), near(1.9))
    assert {name: ms["median"] for name, ms in row["ms"].items()} == {"attrfn": 2e3, "captum": 3e3, "floor": 1e3}
    assert row["ratios"]["captum / attrfn"]["median"] == 1.5
    assert row["ratios"]["attrfn / floor"]["median"] == 2.0
    assert [bar["met"] for bar in row["bars"]] == [True, False, True, False]


def test_a_ratio_is_that_of_one_round(clock: Clock) -> None:
    """A machine that slows down by the round changes times, not ratios."""
    slowing = iter(range(1, 1000))

    def ours() -> torch.Tensor:
        clock.now += next(slowing)
        return torch.ones(2)

    row = compared(Setting(rounds=5), "work", {"attrfn": ours, "captum": ours})
    assert row["ms"]["attrfn"]["high"] > 1.3 * row["ms"]["attrfn"]["low"]
    assert 0.8 < row["ratios"]["captum / attrfn"]["median"] < 1.25


def test_what_is_quick_is_called_several_times(clock: Clock) -> None:
    calls: list[int] = []

    def quick() -> torch.Tensor:
        calls.append(1)
        clock.now += 0.001
        return torch.ones(2)

    row = compared(Setting(rounds=4), "work", {"attrfn": quick})
    assert len(calls) == 1 + 1 + 4 * 10  # the answer, the warm-up, the rounds
    assert row["ms"]["attrfn"]["median"] == pytest.approx(1.0)


def test_another_answer_is_an_error(clock: Clock) -> None:
    work = {"attrfn": clock.work(1.0), "captum": clock.work(1.0, 1.1)}
    with pytest.raises(AssertionError, match=r"apart by .*captum"):
        compared(QUICK, "work", work)
    row = compared(QUICK, "work", work, agree=None)
    assert row["apart"]["captum"] == pytest.approx(0.1, rel=1e-3)


def test_a_peer_that_raises_is_reported_and_its_bar_is_missed(clock: Clock) -> None:
    def broken() -> None:
        raise ValueError("not today")

    row = compared(QUICK, "work", {"attrfn": clock.work(1.0), "captum": broken}, ahead(1))
    assert row["raises"] == {"captum": "ValueError: not today"}
    assert row["bars"][0]["met"] is False
    with pytest.raises(ValueError, match="not today"):
        compared(QUICK, "work", {"attrfn": broken})


def test_containers_are_compared_leaf_by_leaf() -> None:
    one, other = torch.ones(2), torch.tensor([1.0, 4.0])
    assert distance({"a": one, "b": None}, {"a": one, "b": None}) == 0.0
    assert distance((one, one), (one, other)) == 0.75


def test_the_fastest_loop_is_chosen(clock: Clock) -> None:
    fast, slow = clock.work(1.0), clock.work(2.0)
    assert quickest(Setting(), [slow, fast]) is fast


@pytest.mark.parametrize("stage", range(7))
def test_models_are_cut_where_they_say(stage: int) -> None:
    for net in (resnet18(QUICK), models.vit(QUICK)):
        parts, x = cut(net.stages(), stage), images(QUICK, 2)
        torch.testing.assert_close(parts.after(parts.before(x)), net(x))


def test_the_floor_does_not_depend_on_the_fold() -> None:
    net, x = frozen(resnet18(QUICK)).double(), images(QUICK, 2).double()
    paths = [floors.path(net, torch.zeros_like(x), x, 6, 1, fold) for fold in (1, 4, 6)]
    torch.testing.assert_close(paths[0], paths[1])
    torch.testing.assert_close(paths[0], paths[2])


def test_every_script_states_its_question_and_is_listed() -> None:
    home = Path(bench.__file__).parent
    contract = (home / "README.md").read_text()
    for name in (*bench.SCRIPTS, *bench.LONG):
        source = (home / f"{name}.py").read_text()
        assert "?" in source.partition('"""')[2].partition('"""')[0].split("\n\n")[0], name
        assert f"| `{name}` |" in contract


@pytest.mark.filterwarnings("ignore")
def test_scripts_run_and_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    names = ["integrated", "layer_integrated", "shap", "targets", "plain", "overhead", "completeness"]
    bench.main([*names, "--quick", "--rounds", "1"])
    results = tmp_path / "quick"
    for name in names:
        found = json.loads((results / f"{name}.json").read_text())
        assert found["rows"]
        assert found["setting"] == {"quick": True, "device": "cpu", "rounds": 1, "seed": 0}
        assert {"cpu", "cores", "threads", "torch", "captum"} <= set(found["about"])
    page = (results / "README.md").read_text()
    assert page.count("**missed**") + page.count("| met |") == page.count("| ≥") + page.count("| ≤")
    assert str(tmp_path) not in page


def test_a_missed_bar_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bar = {"ratio": "captum / attrfn", "at least": 2.0, "value": 1.0, "met": False}
    found = {"shap": {"rows": [{"work": "w", "model": "m", "bars": [bar]}]}}
    assert "not yet profiled" in report.bars(found)
    monkeypatch.setitem(report.REASONS, ("shap", "w", "m", "captum / attrfn"), "two passes more")
    assert "**missed**: two passes more" in report.bars(found)


def test_an_unknown_script_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["nothing"])
    assert "no script nothing" in capsys.readouterr().err


def test_every_bar_that_is_missed_has_its_reason() -> None:
    page = (bench.RESULTS / "README.md").read_text(encoding="utf-8")
    assert "not yet profiled" not in page
