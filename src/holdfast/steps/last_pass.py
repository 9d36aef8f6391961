"""The last pass over the files of an operation that replaces data, which makes a backup without databases."""

from __future__ import annotations

from holdfast.application.context import ApplicationContext
from holdfast.errors import StepError
from holdfast.model import Backup, Stored
from holdfast.steps import backup, consistency
from holdfast.steps.candidates import LAST_PASS
from holdfast.steps.typed import Context, OperationContext, StepFacts, TypedStep


class LastPassFacts(StepFacts):
    run: str | None = None
    """The backup that is not listed yet, which an undo reads."""
    set_id: str | None = None
    """The backup, which the commit keeps."""


class TakeLastPass(TypedStep[LastPassFacts], frozen=True):
    """Finish a backup without databases, which an undo can read and which is not listed yet."""

    name = LAST_PASS
    is_undone = True

    files: tuple[str, ...]
    reason: str
    code: bool = True
    tolerant: bool = False
    """Whether the databases may be broken."""
    safety: bool = False
    """Whether it contains what is about to be replaced."""

    @property
    def title(self) -> str:
        return "copy files that changed since the backup"

    def do(self, application: ApplicationContext, context: Context[LastPassFacts]) -> None:
        vault = backup.vault_of(application)
        if context.facts_of(backup.PublishBackup) is not None:  # the first pass became a backup of its own
            run, stored = vault.begin(f"{context.operation}.last"), dict[str, Stored]()
        else:
            run, stored = vault.run(context.operation), backup.copied(context)
        taken = consistency.take(
            application, run, context, level="quiesce", databases=(), files=self.files, stored=stored
        )
        if self.code:
            backup.store_code(application, run, context)
        backup.store_configuration(application, run, tolerant=self.safety)
        manifest = self._manifest(application, context, taken)
        run.finish(manifest)
        context.facts.run, context.facts.set_id = run.id, manifest.id
        context.record()

    def _manifest(
        self, application: ApplicationContext, context: OperationContext, taken: consistency.Instant
    ) -> Backup:
        def manifest_of(*, with_migrations: bool) -> Backup:
            return backup.manifest_of(
                application,
                context.operation,
                taken,
                backup.files_facts(taken),
                reason=self.reason,
                safety=self.safety,
                with_migrations=with_migrations,
            )

        try:
            return manifest_of(with_migrations=True)
        except StepError as error:  # the manifest omits migrations only if the database is broken
            if not self.tolerant:
                raise
            context.say(f"applied migrations are not known: {error.what}")
            return manifest_of(with_migrations=False)

    def undo(self, application: ApplicationContext, context: Context[LastPassFacts]) -> None:
        if application.vault is not None:
            application.vault.abandon(f"{context.operation}.last")
