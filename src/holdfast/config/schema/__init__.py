"""Every key of holdfast.toml with its type, default and meaning; the reference page is generated from here."""

from holdfast.config.schema.backup import Backup, Keep, References, Vault
from holdfast.config.schema.configuration import Application, Configuration, Secrets
from holdfast.config.schema.datasets import Database, Files, RestorePoint, Uploads
from holdfast.config.schema.gate import Gate, Switch
from holdfast.config.schema.hooks import Hook, HookName, Hooks
from holdfast.config.schema.indices import Index
from holdfast.config.schema.queues import Queues
from holdfast.config.schema.sanitize import Sanitize
from holdfast.config.schema.schedule import Schedule
from holdfast.config.schema.section import Section
from holdfast.config.schema.services import Limits, Runtime, Service, Task, Tasks
from holdfast.config.schema.upgrade import Guard, Migrations, PythonSource, Releases, Source, Upgrade, WritablePath

__all__ = [
    "Application",
    "Backup",
    "Configuration",
    "Database",
    "Files",
    "Gate",
    "Guard",
    "Hook",
    "HookName",
    "Hooks",
    "Index",
    "Keep",
    "Limits",
    "Migrations",
    "PythonSource",
    "Queues",
    "References",
    "Releases",
    "RestorePoint",
    "Runtime",
    "Sanitize",
    "Schedule",
    "Secrets",
    "Section",
    "Service",
    "Source",
    "Switch",
    "Task",
    "Tasks",
    "Upgrade",
    "Uploads",
    "Vault",
    "WritablePath",
]
