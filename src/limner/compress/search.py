"""The search's book-keeping: its space, its study in a database, the median rule, and the front. No torch.

Three objectives: quality (dB, up), latency (times the yardstick of `runtime.bench`, down), size (bytes, down). Optuna
cannot prune with several objectives (`Trial.should_prune` raises there), so the rule is ours: see `hopeless`.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import optuna
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from limner.config import RunConfig, override
from limner.errors import LimnerError, UsageError

# Heartbeats and retries are marked so since version 2.8; a search cannot be resumed without them.
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

DIRECTIONS: tuple[Literal["maximize", "minimize"], ...] = ("maximize", "minimize", "minimize")
QUALITY, SEEN, SPACE, SKIPPED = "quality", "seen", "space", "skipped"
LEAST_RIVALS = 4
HEARTBEAT, GRACE = 60, 180  # seconds; a worker that is silent for longer has died, and its trial is taken up again
RETRIES = 3
VARIATIONS, ROUNDS = 50, 10

# What is searched unless told otherwise; any key of a run's settings can be.
DEFAULT_SPACE: dict[str, tuple[Any, ...]] = {
    "model.kind": ("separable", "grouped", "dense"),
    "model.width": (16, 32, 48, 64),
    "model.depth": (4, 6, 8, 12, 16, 22),
    "model.expansion": (1, 2),
    "model.kernel": (3, 5),
    "model.unshuffle": (1, 2),
    "model.activation": ("relu", "relu6"),
    "quantize.weight_bits": (4, 5, 6, 7),
    "prune.ratio": (0.0, 0.2),
}


class Figures(NamedTuple):
    """What a trial measured. `quality` in dB, `ratio` to the yardstick, `bytes` of the int8 graph."""

    quality: float
    ratio: float
    bytes: float


class Skipped(optuna.TrialPruned):
    """A trial that took no time: its settings were tried before, or exclude each other."""


class Point(NamedTuple):
    """A finished trial. `settings`: the searched keys; `ms`: p50 where it was measured; `best`: on the front."""

    number: int
    figures: Figures
    ms: float
    parameters: int
    settings: dict[str, Any]
    best: bool


def parse_space(pairs: Sequence[str], base: RunConfig) -> dict[str, tuple[Any, ...]]:
    """`section.key=a,b,c` strings over DEFAULT_SPACE; `section.key=` alone takes a key out of the search.

    Raises UsageError that names the key for one that settings do not have, or a value they cannot take.
    """
    space = dict(DEFAULT_SPACE)
    for pair in pairs:
        key, separator, values = pair.partition("=")
        if not separator:
            raise UsageError(f"--space {pair!r}: write it as section.key=value,value.")
        space[key] = tuple(_value(each) for each in values.split(",") if each.strip())
    space = {key: values for key, values in space.items() if values}
    if not space:
        raise UsageError("--space: leaves nothing to search.")
    for key, values in space.items():
        for value in values:
            _check(key, value, base)
    return space


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text.strip()


def _check(key: str, value: Any, base: RunConfig) -> None:
    """Keys must exist, whatever else they are combined with; whether a combination is possible, a trial finds out."""
    section, _, name = key.partition(".")
    known = getattr(base, section, None)
    if known is None or name not in type(known).model_fields:
        raise UsageError(f"--space: settings have no key {key!r}; docs/training.md lists them.")
    try:
        override(base, [f"{key}={json.dumps(value)}"])
    except UsageError as error:
        if f": {key}: " in str(error):  # a fault of the key itself, not of its company
            raise UsageError(f"--space: {str(error).removeprefix('--set: ')}") from None


def settings_of(base: RunConfig, chosen: Mapping[str, Any]) -> RunConfig:
    """`base` with the chosen keys. Raises UsageError for values that exclude each other."""
    return override(base, [f"{key}={json.dumps(value)}" for key, value in chosen.items()])


def open_study(url: str, name: str, facts: Mapping[str, Any], seed: int | None = None) -> optuna.Study:
    """The study `name` in the database `url`, made if it is not there. `facts`: what its trials must agree in, the
    space among them. Raises LimnerError when the database cannot be reached, UsageError for a study of other facts.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # else tracebacks of what is told in a sentence
    retry = RetryHeartbeatStaleTrialCallback(max_retry=RETRIES)
    try:
        storage = RDBStorage(
            url, heartbeat_interval=HEARTBEAT, grace_period=GRACE, heartbeat_stale_trial_callback=retry
        )
        study = optuna.create_study(
            storage=storage,
            study_name=name,
            directions=DIRECTIONS,
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed),
        )
    except Exception as error:  # every driver has errors of its own
        raise LimnerError(f"{shown(url)}: {_reason(error)}") from None
    _agree(study, shown(url), json.loads(json.dumps(facts)))
    return study


def _reason(error: Exception) -> str:
    text = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, ImportError):
        return f"its driver is not installed ({text:.160}); pip install it."
    return f"the database cannot be reached ({text:.160}); check the URL and that its server runs."


def shown(url: str) -> str:
    """The URL without its password."""
    return re.sub(r"(://[^:/@]+):[^@]*@", r"\1:***@", url)


def _agree(study: optuna.Study, url: str, facts: dict[str, Any]) -> None:
    if tuple(direction.name.lower() for direction in study.directions) != DIRECTIONS:
        raise UsageError(f"{url}: study {study.study_name!r} has other objectives; choose another --study.")
    before = study.user_attrs.get(SPACE)
    if before is None:
        if study.trials:
            raise UsageError(f"{url}: study {study.study_name!r} is not one of limner search; choose another --study.")
        study.set_user_attr(SPACE, facts)
        return
    changed = next((key for key in sorted(before.keys() | facts.keys()) if before.get(key) != facts.get(key)), None)
    if changed:
        raise UsageError(
            f"{url}: study {study.study_name!r} searches another {changed} ({before.get(changed)} there, "
            f"{facts.get(changed)} here): give the same settings, or choose another --study."
        )


def suggest(trial: optuna.Trial, space: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A value of every key."""
    return {key: trial.suggest_categorical(key, values) for key, values in space.items()}


def propose_base(study: optuna.Study, base: RunConfig, space: Mapping[str, Sequence[Any]]) -> None:
    """The first trial of a study is what its recipe is now, where the space holds it."""
    raw = base.model_dump(mode="json")
    own = {key: raw[section][name] for key in space for section, _, name in [key.partition(".")]}
    if not study.trials and all(own[key] in space[key] for key in space):
        study.enqueue_trial(own, skip_if_exists=True)


def note(trial: optuna.Trial, ratio: float, images: int, quality: float) -> None:
    """Keep the quality (dB) after `images` where other workers see it."""
    known = dict(trial.user_attrs.get(SEEN, {}))
    trial.set_user_attr(SEEN, {**known, str(images): quality})
    trial.set_user_attr("ratio", ratio)


def hopeless(trials: Sequence[FrozenTrial], number: int, ratio: float, images: int, quality: float) -> bool:
    """The median rule for several objectives: after `images`, the quality is below the median of the trials that are
    as fast or faster (ratio up to that of this one). Never with fewer than LEAST_RIVALS of them.

    Golovin et al. 2017 (Vizier, section 3.2.2) compare with all trials; here that would end every small network.
    """
    rivals = [
        float(each.user_attrs[SEEN][str(images)])
        for each in trials
        if each.number != number and each.user_attrs.get("ratio", ratio + 1) <= ratio
        if str(images) in each.user_attrs.get(SEEN, {})
    ]
    return len(rivals) >= LEAST_RIVALS and quality < statistics.median(rivals)


def first_number(trial: optuna.Trial | FrozenTrial) -> int:
    """The number of the trial that this one takes up again, or its own."""
    frozen = trial if isinstance(trial, FrozenTrial) else trial.study.trials[trial.number]
    retried = RetryHeartbeatStaleTrialCallback.retried_trial_number(frozen)
    return frozen.number if retried is None else retried


def twin(study: optuna.Study, chosen: Mapping[str, Any]) -> FrozenTrial | None:
    """A trial of the same settings that has ended: the sampler may propose them twice, but they train once."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return next((each for each in done if each.params == dict(chosen)), None)


def vary(study: optuna.Study, chosen: Mapping[str, Any], space: Mapping[str, Sequence[Any]]) -> None:
    """Let the study try settings that it has not had, as few keys away from `chosen` as chance finds; else nothing."""
    trials = study.get_trials(deepcopy=False)
    tried = [each.params or each.system_attrs.get("fixed_params", {}) for each in trials]
    draw, open_keys = random.Random(len(trials)), [key for key, values in space.items() if len(values) > 1]
    for count in range(1, len(open_keys) + 1):
        for _ in range(VARIATIONS):
            changed = {key: draw.choice(list(space[key])) for key in draw.sample(open_keys, count)}
            if {**chosen, **changed} not in tried:
                study.enqueue_trial({**chosen, **changed})
                return


def run(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], Figures],
    trials: int,
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Run `trials` more trials in this process, not counting those that were `Skipped`, up to ROUNDS times as many. One
    that raises LimnerError (a loss that is no number, say) is marked as failed, with the reason, and the next begins.
    One that is interrupted waits to be taken up again.
    """
    skipped = 0

    def told(trial: optuna.Trial) -> tuple[float, ...]:
        nonlocal skipped
        try:
            return tuple(objective(trial))
        except Skipped:
            skipped += 1
            raise
        except LimnerError as error:
            trial.set_user_attr("reason", str(error))
            raise
        except KeyboardInterrupt:  # by hand: the same command goes on with this trial, from its checkpoint
            RetryHeartbeatStaleTrialCallback()(study, study.trials[trial.number])
            raise

    def count(_: optuna.Study, trial: FrozenTrial) -> None:
        if not trial.user_attrs.get(SKIPPED):
            advance()

    for _ in range(ROUNDS):
        study.optimize(told, n_trials=trials, catch=(LimnerError,), callbacks=[count])
        trials, skipped = skipped, 0
        if not trials:
            return


def points(study: optuna.Study) -> list[Point]:
    """Every finished trial once, best quality first."""
    front = {each.number for each in study.best_trials}
    found: dict[str, Point] = {}
    for each in study.get_trials(states=(TrialState.COMPLETE,)):
        attributes, settings = each.user_attrs, dict(each.params)
        point = Point(
            each.number,
            Figures(*each.values),
            attributes.get("ms", float("nan")),
            attributes.get("parameters", 0),
            settings,
            each.number in front,
        )
        found.setdefault(json.dumps(settings, sort_keys=True), point)
    return sorted(found.values(), key=lambda point: -point.figures.quality)


def counts(study: optuna.Study) -> dict[str, int]:
    """How many trials ended in each way."""
    states = [each.state.name.lower() for each in study.get_trials(deepcopy=False)]
    return {state: states.count(state) for state in sorted(set(states))}


def write_recipes(base: RunConfig, found: Sequence[Point], folder: Path) -> list[Path]:
    """A JSON run configuration for each point of the front, as `limner train FILE` takes it: NAME-NUMBER.json."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for point in found:
        if point.best:
            name = f"{base.name}-{point.number:04d}"
            config = settings_of(base, point.settings).model_copy(update={"name": name})
            path, draft = folder / f"{name}.json", folder / f".{name}.tmp"
            draft.write_text(config.model_dump_json(indent=1) + "\n", "utf-8")
            draft.replace(path)
            written.append(path)
    return written


def plot(found: Sequence[Point], path: Path) -> None:
    """A PNG of quality over latency, size as area, the front in colour. Raises UsageError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("the plot needs matplotlib: run `pip install 'limner[compress]'`.") from None
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for best, colour, label in ((False, "#bbbbbb", "dominated"), (True, "#cc3311", "front")):
        shown_points = [point for point in found if point.best == best]
        x, y = [p.figures.ratio for p in shown_points], [p.figures.quality for p in shown_points]
        axes.scatter(x, y, [p.figures.bytes / 1500 for p in shown_points], color=colour, label=label, alpha=0.8)
        for point in shown_points if best else []:
            axes.annotate(str(point.number), (point.figures.ratio, point.figures.quality))
    axes.set_xscale("log")
    axes.set_xlabel("latency, times the yardstick (area: bytes)")
    axes.set_ylabel("quality of the int8 bundle, dB")
    axes.legend(markerscale=0.5)
    draft = path.with_name(f".{path.name}")
    figure.savefig(draft, format="png", dpi=150)
    draft.replace(path)
