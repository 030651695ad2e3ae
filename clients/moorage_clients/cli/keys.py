"""The names of what a session is set up with, as a command line writes them."""

LABEL = "label."
TEXTS = ("name", "system_prompt", "planning_mode", "parent")
KEYS = (
    *TEXTS,
    "max_context_length",
    "auto_compact",
    "auto_compact_threshold",
    "goal_tracking",
    "thinking",
    "tools",
    "lanes",
    "confirmation",
    "permissions",
    "security",
)


def is_key(key: str) -> bool:
    """Whether it is one of a configuration, or a label."""
    return key in KEYS or (key.startswith(LABEL) and len(key) > len(LABEL))
