"""`holdfast check`."""

from __future__ import annotations

from msgspec.structs import asdict

from holdfast.cli.command import command
from holdfast.cli.session import Session, common
from holdfast.errors import RefusedError


@command(
    examples=[
        ("check", "Look at the machine, the services and the backups."),
        ("check --json -q", "For a monitor: exit code 4 if there are errors."),
    ]
)
@common
def check(session: Session) -> None:
    """Check tools, services, space, permissions, secrets and backups; print what fixes each problem."""
    from holdfast.reports import check as operation

    app = session.app()
    problems = operation.problems(app)
    for problem in problems:
        session.renderer.line(f"{problem.severity:8} {problem.subject}: {problem.message}")
        if problem.advice:
            session.renderer.line(f"         -> {problem.advice}")
    errors = [problem for problem in problems if problem.severity == "error"]
    error = RefusedError(
        f"{len(errors)} of {len(problems)} findings are errors",
        next_step="Fix the errors in the order shown, then run `holdfast check` again.",
    )
    if errors and not session.renderer.as_json:
        raise error
    if not problems:
        session.renderer.line("no problems found")
    code = error.exit_code if errors else 0
    data = {"problems": [asdict(problem) for problem in problems], "errors": len(errors)}
    session.renderer.result(data, exit_code=code)
    if code:
        raise SystemExit(code)
