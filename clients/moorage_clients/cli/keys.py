"""Names as a command line writes them: what a session is set up with, what its log holds."""

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

# Kinds of entries; what a log mostly holds in front.
KINDS = (
    *("message", "tool", "plan", "update", "state", "prompt", "begin", "ask", "answer", "intent"),
    *("result", "override", "verdict", "config", "posture", "compaction", "cost", "report"),
    *("artifact", "upload", "archive", "imported", "grant", "charge", "end"),
)


def is_key(key: str) -> bool:
    """Whether it is one of a configuration, or a label."""
    return key in KEYS or (key.startswith(LABEL) and len(key) > len(LABEL))
