"""``obs-pipeline policies`` validate, lint, test, schema: are the files in order?

Each command reads the files, asks the policy room, and shows; the exit code can guard a merge.
"""

from __future__ import annotations

from typing import Annotated

import typer

from obs_pipeline.cli.console import out, print_json, text
from obs_pipeline.cli.policies.reading import (
    TO_MEND,
    AsJson,
    At,
    Folder,
    ToFile,
    loaded,
    plain,
    say,
    used_places,
    write,
)
from obs_pipeline.clock import utc_now
from obs_pipeline.settings import get_settings


def validate(folder: Folder = None, as_json: AsJson = False) -> None:
    """Can every policy file and test case be read? Every problem with its file and line; exits with 2 if there is one."""
    from obs_pipeline.policy.cases import load_cases
    from obs_pipeline.policy.files import load_policies

    root = folder or get_settings().policies
    policies, cases = load_policies(root), load_cases(root)
    problems = (*policies.problems, *cases.problems)
    if as_json:
        print_json({"policies": len(policies.policies), "cases": len(cases.cases), "problems": plain(problems)})
    else:
        say(map(str, problems))
        if not problems:
            out.print(f"[green]In order:[/] {len(policies.policies)} policies, {len(cases.cases)} test cases.")
    if problems:
        raise typer.Exit(TO_MEND)


def lint(
    folder: Folder = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 2 on warnings too.")] = False,
    at: At = None,
    as_json: AsJson = False,
) -> None:
    """What is odd about policies that can be read: limits that never bind, refused overrides, twins, ended raises.

    Where there is usage, policies for places that no usage mentions are told too. Exits with 2 if there is an error.
    """
    from obs_pipeline.policy.lint import lint as lint_policies

    policies = loaded(folder).policies
    findings = lint_policies(policies, at or utc_now(), used_places() or None)
    if as_json:
        print_json(plain(findings))
    else:
        say(map(str, findings))
        if not findings:
            out.print(f"[green]Nothing to say[/] about {len(policies)} policies.")
    if any(finding.severity == "error" or strict for finding in findings):
        raise typer.Exit(TO_MEND)


def run_tests(folder: Folder = None, as_json: AsJson = False) -> None:
    """Run the test cases beside the policies: for a place, the limits that should hold. Exits with 2 if one does not."""
    from obs_pipeline.policy.cases import load_cases, run_cases

    root = folder or get_settings().policies
    results = run_cases(load_cases(root, strict=True).cases, loaded(folder).policies)
    failed = [result for result in results if not result.passed]
    if as_json:
        print_json(plain(results))
    else:
        for result in failed:
            out.print(f"[red]failed[/] {text(f'{result.file}:{result.line}: {result.name}')}", soft_wrap=True)
            say(f"  {difference}" for difference in result.differences)
        said = f"{len(failed)} of {len(results)} cases failed." if failed else f"All {len(results)} cases hold."
        out.print(f"[{'red' if failed else 'green'}]{said}[/]")
    if failed:
        raise typer.Exit(TO_MEND)


def schema(
    file: ToFile = None,
) -> None:
    """The JSON Schema of a policy file, for editors and other tools."""
    from obs_pipeline.policy.schema import policy_json_schema

    write(policy_json_schema(), file)
