"""The commands, each with its module and its help in one line, and the topics of `holdfast help`."""

from __future__ import annotations

SECTIONS: dict[str, dict[str, tuple[str, str]]] = {
    "Get started": {
        "init": ("init", "Write a commented holdfast.toml for this folder."),
        "install": ("install", "Install the application for the first time."),
        "adopt": ("adopt", "Take over a project whose containers are running."),
        "import": ("import_", "Import a dump or files that another tool made."),
        "demo": ("demo", "Demonstrate everything on a small application."),
    },
    "Every day": {
        "status": ("status", "Show services, release, last backup and open operations."),
        "upgrade": ("upgrade", "Upgrade to a release; a bad one is undone."),
        "rollback": ("rollback", "Go back to the previous release."),
        "maintenance": ("maintenance", "Show visitors the maintenance page, or let them in."),
        "service": ("service", "Show services and their output; stop, start and restart them."),
        "cache": ("cache", "Rebuild the cache of the running release."),
        "schedule": ("schedule", "Show scheduled tasks, and run one now."),
        "queue": ("queue", "Show message queues; purge them, or move messages."),
        "console": ("console", "Run the application's console with arguments."),
        "clone": ("clone", "Copy one environment's data to another."),
    },
    "Backups and packages": {
        "backup": ("backup", "Create, list, compare, verify, restore, prune and pin backups; find files."),
        "index": ("index", "Show search indices; build them again."),
        "sanitize": ("sanitize", "Decide what sanitized backups contain; show rules and statements."),
        "media": ("media", "List, download, upload and delete the files of a dataset."),
        "package": ("package", "Build, list, show, verify, deploy and prune packages."),
        "patch": ("patch", "List, view, apply and revert patches of the running release."),
        "release": ("release", "List releases."),
    },
    "When something is wrong": {
        "check": ("check", "Find problems and risks; print what fixes them."),
        "recover": ("recover", "Bring an interrupted operation to its end."),
        "log": ("log", "Show operations with every command and its output."),
    },
    "Configuration and help": {
        "config": ("config", "Validate, show and explain the configuration."),
        "secret": ("secret", "Keep secrets encrypted; configuration refers to them as secret:NAME."),
        "credentials": ("credentials", "Show how to reach databases and services of an environment."),
        "completion": ("completion", "Print a script with which a shell completes commands and values."),
        "help": ("help", "Show the help of a command, the common options, or the exit codes."),
    },
}
COMMANDS: dict[str, tuple[str, str]] = {name: entry for part in SECTIONS.values() for name, entry in part.items()}
TOPICS = ("exit-codes", "names", "options")
