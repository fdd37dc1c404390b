"""Why a bar is missed, as profiling found it, and what was tried: by script, work, model and ratio."""

REASONS: dict[tuple[str, str, str, str], str] = {}
