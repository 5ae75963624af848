"""Commands that make the book from a clone of its repository: ``extractbook build | pdf | course | assignment``."""

from pathlib import Path
from typing import Annotated

import typer

from extractlib.errors import InputError

CLONE = Path(__file__).resolve().parents[3]


def build(
    scale: Annotated[str, typer.Option(help="At which scale the chapters run.")] = "drawn",
    jobs: Annotated[int, typer.Option(min=1, help="Chapters at a time.")] = 2,
) -> None:
    """Execute the chapters that have changed and render the pages into _build/html."""
    require_clone()
    from extractbook.build import pages

    raise typer.Exit(pages.build(scale=scale, jobs=jobs))


def pdf() -> None:
    """Print the built pages as one PDF; needs chromium."""
    require_clone()
    from extractbook.build import pdf

    raise typer.Exit(pdf.print_book())


def course() -> None:
    """Write the chapters' versions for students and instructors into _build/courses."""
    require_clone()
    from extractbook.build import courses

    courses.write_courses(courses.COURSES)


def assignment(
    chapter: Annotated[int, typer.Option(min=1, help="Number of the chapter.")],
    seed: Annotated[int, typer.Option(min=0, help="Decides the numbers in the statements.")],
) -> None:
    """Write nbgrader's source of a chapter's exercises into _build/courses."""
    require_clone()
    from extractbook.build import courses

    courses.write_assignment(courses.COURSES, chapter, seed)


def require_clone() -> None:
    """Raise InputError where no repository of the book is around this package."""
    if not (CLONE / "_config.yml").exists():
        raise InputError(f"there is no book around {CLONE}: run this in a clone of its repository")


COMMANDS = (build, pdf, course, assignment)
