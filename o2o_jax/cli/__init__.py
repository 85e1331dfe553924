"""Command line: `o2o <command>`, or `python -m experiments.<command>` in a checkout."""

COMMANDS = (
    "dataset",
    "offline",
    "finetune",
    "play",
    "export",
    "diagnose",
    "report",
    "study",
    "settings",
    "demo",
    "behaviour",
    "verify",
)
