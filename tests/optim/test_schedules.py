"""Learning-rate schedules where torch's say nothing: warm-up, what holds for all, and what could have no effect."""

from typing import Any

import pytest

from cnnbench.errors import SettingError
from cnnbench.optim.schedules import Horizon, Schedule, warmed_up
from cnnbench.registry import SCHEDULERS
from tests.support.options import settings_of, walked
from tests.support.schedules import HORIZON, NAN, factors, schedule

# Values for a training of six epochs.
SPREAD = {
    "cosine": {"final_fraction": 0.1},
    "cosine_restarts": {"period": 2, "unit": "epoch", "multiplier": 2, "final_fraction": 0.1},
    "polynomial": {"power": 2.0, "final_fraction": 0.1},
    "exponential": {"gamma": 0.5, "unit": "epoch"},
    "one_cycle": {"up_share": 0.3, "start_fraction": 0.04, "final_fraction": 0.1},
    "cyclic": {"up": 1, "down": 2, "unit": "epoch", "low_fraction": 0.1},
}
COUNTING = {
    "none": {},
    "step": {"every": 2, "unit": "epoch", "gamma": 0.3},
    "multistep": {"milestones": [2, 5], "unit": "epoch", "gamma": 0.3},
    "plateau": {"patience": 2, "gamma": 0.5, "min_delta": 0.0, "cooldown": 0, "min_fraction": 0.0},
}


class TestPlateau:
    """What torch's says nothing about."""

    @pytest.mark.parametrize(
        ("scores", "expected"),
        [
            ([], 1.0),
            ([0.5], 1.0),
            ([0.5, 0.5], 1.0),
            ([0.5, 0.5, 0.5], 0.1),
            ([0.5, 0.5, 0.6, 0.6], 1.0),
            ([0.5, NAN, 0.4], 0.1),
            ([NAN, NAN], 0.1),
            ([NAN, 0.1, 0.2, 0.3], 1.0),
            ([-3.0, -2.0, -1.0], 1.0),
        ],
    )
    def test_it_falls_after_as_many_evaluations_without_improvement_as_patience_says(self, scores, expected):
        falls = schedule("plateau", patience=2, gamma=0.1)
        assert falls(7, scores) == pytest.approx(expected)

    def test_the_step_does_not_matter(self):
        falls = schedule("plateau", patience=1, gamma=0.1)
        assert {falls(step, [0.5, 0.4]) for step in range(30)} == {0.1}


class TestWarmUp:
    """A straight line up to where the schedule begins."""

    @pytest.mark.parametrize("name", SPREAD)
    def test_what_spreads_over_the_training_begins_after_it(self, name):
        warm, cold = Horizon(7, 5, warmup=5), Horizon(6, 5)
        made = warmed_up(schedule(name, warm, **SPREAD[name]), 5)
        got = [made(step, ()) for step in range(35)]
        main = factors(name, cold, **SPREAD[name])
        assert got[5:] == main
        assert got[:5] == pytest.approx([main[0] * number / 6 for number in range(1, 6)], rel=1e-12)

    @pytest.mark.parametrize("name", ["step", "multistep"])
    def test_milestones_count_from_the_very_beginning(self, name):
        made = warmed_up(schedule(name, Horizon(6, 5, warmup=4), **COUNTING[name]), 4)
        plain = factors(name, **COUNTING[name])
        assert [made(step, ()) for step in range(30)] == pytest.approx([0.2, 0.4, 0.6, 0.8, *plain[4:]], rel=1e-12)

    def test_a_plateau_is_seen_afterwards(self):
        made = warmed_up(schedule("plateau", Horizon(6, 5, warmup=4), **COUNTING["plateau"]), 4)
        scores = [0.5, 0.4, 0.3]
        assert [made(step, scores) for step in (0, 3, 4)] == [0.2, 0.8, 0.5]

    @pytest.mark.parametrize("warmup", [30, 31])
    def test_one_as_long_as_the_training_is_an_error(self, warmup):
        assert Horizon(6, 5, warmup=29).num_main_steps == 1
        message = f"scheduler.warmup={warmup}  must be shorter than the whole training of 30 steps; warm up for less"
        with pytest.raises(SettingError, match=message):
            Horizon(6, 5, warmup=warmup)


class TestEverySchedule:
    """What holds for all that are registered."""

    def made(self, name: str) -> tuple[Schedule, int]:
        """Return a schedule and the length of its training: with the values above, or else those of its option."""
        if name in SPREAD | COUNTING:
            return schedule(name, **(SPREAD | COUNTING)[name]), HORIZON.num_steps
        own, horizon = settings_of("scheduler", name), Horizon(epochs=100, steps_per_epoch=5)
        return schedule(own.pop("name"), horizon, **own), horizon.num_steps

    @pytest.mark.parametrize("name", walked("scheduler"))
    def test_it_is_a_function_of_step_and_scores_alone(self, name):
        (first, length), (second, _) = self.made(name), self.made(name)
        scores = [0.1, 0.3, NAN, 0.2, 0.2, 0.1] * (length // 30)
        forwards = [first(step, scores[: step // 5]) for step in range(length)]
        backwards = [second(step, scores[: step // 5]) for step in reversed(range(length))]
        assert forwards == backwards[::-1]
        assert all(0 <= factor <= 1 for factor in forwards)
        assert sum(forwards) > 0

    @pytest.mark.parametrize("name", walked("scheduler"))
    def test_it_has_a_value_after_the_end(self, name):
        """Of a finished run that is trained for longer; also of a single step."""
        made, length = self.made(name)
        assert 0 <= made(length, [0.1]) <= 1

    @pytest.mark.parametrize("name", ["none", "cosine", "polynomial", "exponential"])
    def test_a_training_of_one_step_has_the_full_rate(self, name):
        assert factors(name, Horizon(1, 1), **(SPREAD | COUNTING)[name]) == [1.0]

    @pytest.mark.parametrize(
        ("name", "setting"),
        [(name, key) for name in SPREAD | COUNTING for key in SCHEDULERS[name].schema.model_fields],
    )
    def test_every_setting_is_honoured(self, name, setting):
        own = settings_of("scheduler", name)
        del own["name"]
        old = own[setting]
        others = {"unit": "step", "milestones": [10], "multiplier": 2, "min_delta": 0.08, "min_fraction": 0.2}
        new = others[setting] if setting in others else old + 1 if isinstance(old, int) else old / 2 or 0.25
        scores = [number / 100 for number in range(10)] + [0.0] * 20

        def rates(**changed: Any) -> list[float]:
            made = schedule(name, Horizon(40, 3), **(own | changed))
            return [made(step, scores[: step // 3]) for step in range(120)]

        assert rates(**{setting: new}) != rates()


@pytest.mark.parametrize(
    ("name", "changed", "message", "instead"),
    [
        ("step", {"every": 6}, "training ends after 6 epochs, before the first change", {"every": 3}),
        ("step", {"every": 30, "unit": "step"}, "training ends after 30 steps, before the first", {"every": 15}),
        ("multistep", {"milestones": [5, 2]}, "each must come after the one before", None),
        ("multistep", {"milestones": [2, 2]}, "each must come after the one before", None),
        ("multistep", {"milestones": [2, 6]}, "training ends after 6 epochs, before 6; leave it out",
         {"milestones": [2]}),
        ("multistep", {"milestones": [80, 120]}, "training ends after 6 epochs, before 120", {"milestones": [3]}),
        ("cosine_restarts", {"period": 6}, "training ends 6 epochs after the warm-up, before the", {"period": 3}),
        ("cosine_restarts", {"period": 1, "unit": "step", "multiplier": 1}, "with a restart at", {"period": 2}),
        ("one_cycle", {"up_share": 0.03}, "of 30 steps that leaves none to rise in; give more than 0.0333",
         {"up_share": 0.5}),
        ("cyclic", {"up": 6}, "training ends 6 epochs after the warm-up, before the learning rate first falls",
         {"up": 2, "down": 2}),
        ("cyclic", {"up": 29, "unit": "step"}, "training ends 30 steps after the warm-up, before",
         {"up": 14, "down": 14}),
    ],
)  # fmt: skip
def test_what_could_never_have_an_effect_is_an_error_and_what_would_have_one_is_offered(
    name, changed, message, instead
):
    settings = (SPREAD | COUNTING)[name] | changed
    with pytest.raises(SettingError) as refused:
        schedule(name, **settings)
    (mistake,) = refused.value.mistakes
    setting = next(iter(changed))
    assert mistake.given == f"scheduler.{setting}={changed[setting]}"
    assert mistake.problem.startswith(message)
    if instead is None:
        assert mistake.instead is None
    else:
        assert mistake.instead == {f"scheduler.{key}": value for key, value in instead.items()}
        assert len(set(factors(name, **(settings | instead)))) > 1


@pytest.mark.parametrize("name", ["step", "multistep", "cosine_restarts", "cyclic", "one_cycle"])
@pytest.mark.parametrize(
    ("epochs", "steps_per_epoch"), [(1, 1), (1, 2), (1, 7), (2, 1), (2, 2), (3, 1), (4, 1), (9, 1)]
)
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_whatever_is_offered_instead_fits(name, epochs, steps_per_epoch, unit):
    too_long = {"every": 99, "milestones": [50, 99], "period": 99, "up": 99, "down": 99, "up_share": 1e-6}
    settings = {key: too_long.get(key, value) for key, value in (SPREAD | COUNTING)[name].items()}
    settings |= {"unit": unit} if "unit" in settings else {}
    settings |= {"multiplier": 1} if "multiplier" in settings else {}
    horizon = Horizon(epochs, steps_per_epoch)
    with pytest.raises(SettingError) as refused:
        schedule(name, horizon, **settings)
    instead = refused.value.mistakes[0].instead
    if instead is not None:
        schedule(name, horizon, **settings | {key.removeprefix("scheduler."): value for key, value in instead.items()})
    else:
        assert horizon.num_steps <= 4 or (epochs == 1 and unit == "epoch")


@pytest.mark.parametrize(
    ("horizon", "instead"), [((6, 5, 8, "epoch"), 3), ((1, 5, 1, "epoch"), None), ((6, 5, 30), 15)]
)
def test_a_warm_up_that_is_too_long_is_offered_half_of_the_training(horizon, instead):
    with pytest.raises(SettingError) as refused:
        Horizon(*horizon)
    assert refused.value.mistakes[0].instead == (None if instead is None else {"scheduler.warmup": instead})


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("step", {"every": 5}),
        ("step", {"every": 29, "unit": "step"}),
        ("multistep", {"milestones": [5]}),
        ("cosine_restarts", {"period": 5}),
        ("cosine_restarts", {"period": 1, "unit": "step", "multiplier": 2}),
        ("one_cycle", {"up_share": 0.04}),
        ("cyclic", {"up": 28, "unit": "step"}),
    ],
)
def test_what_has_an_effect_at_the_very_last_is_none(name, changed):
    assert len(set(factors(name, **((SPREAD | COUNTING)[name] | changed)))) > 1


def test_a_warm_up_leaves_less_for_what_comes_after_it():
    settings = SPREAD["cosine_restarts"] | {"period": 5}
    with pytest.raises(SettingError, match=r"scheduler.period=5  training ends 4.8 epochs after the warm-up"):
        schedule("cosine_restarts", Horizon(6, 5, warmup=6), **settings)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["scheduler=one_cycle", "scheduler.warmup=3"], "scheduler.warmup=3  'one_cycle' warms up by itself; give 0"),
        (["scheduler=plateau", "data.val_fraction=0"], "has nothing to watch with data.val_fraction=0; give a"),
        (
            ["scheduler=plateau", "scheduler.patience=5", "epochs=6"],
            "scheduler.patience=5  exceeds the 5 evaluations after the first in 6 epochs",
        ),
        (
            ["scheduler=plateau", "scheduler.patience=5", "epochs=12", "eval_every=2"],
            "scheduler.patience=5  exceeds the 5 evaluations after",
        ),
        (["scheduler=step", "scheduler.gamma=1.0"], "scheduler.gamma=1.0  must be a number above 0 and below 1"),
        (
            ["scheduler=multistep", "scheduler.milestones=[]"],
            "scheduler.milestones=[]  must be a list of at least 1, each",
        ),
    ],
)
def test_combinations_without_effect_are_mistakes(cnnbench, words, message):
    outcome = cnnbench(*words, "--cfg", "job")
    assert outcome.code == 2
    assert message in outcome.err


@pytest.mark.parametrize(
    "words",
    [
        ["scheduler=one_cycle"],
        ["scheduler=plateau", "epochs=7"],
        ["scheduler=plateau", "epochs=13", "eval_every=2"],
        ["scheduler=plateau", "epochs=1", "eval_every=1", "eval_unit=step"],
        ["scheduler=cosine", "scheduler.warmup=3"],
    ],
)
def test_combinations_with_an_effect_are_none(cnnbench, words):
    outcome = cnnbench(*words, "--cfg", "job")
    assert outcome.code == 0, outcome.err
