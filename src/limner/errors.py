"""Faults a user can mend. Every one carries a single sentence: what, why, and what to do."""


class LimnerError(ValueError):
    """Bad input, data, bundle or configuration. The command line prints the sentence and exits with 1."""


class UsageError(LimnerError):
    """The request itself is impossible (unknown model, scale, engine, key). The command line exits with 2."""


def one_of(kind: str, name: str, choices: list[str] | tuple[str, ...]) -> UsageError:
    """The error for a name that is not among `choices`, with the closest match as a hint."""
    from difflib import get_close_matches

    close = get_close_matches(name, choices, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"choose one of: {', '.join(choices) or 'none available'}."
    return UsageError(f"unknown {kind} {name!r}: {hint}")
