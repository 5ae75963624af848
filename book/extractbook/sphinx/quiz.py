"""Questions that are answered on the page without a kernel, as a Sphinx extension.

A question is written in a notebook's Markdown, where it can be read as plain text:

    ```{quiz}
    - question: What does a label hide?
      choices:
        a: The runner-up.
        b: The winner.
      feedback:
        a: Yes. …
        b: No: …
      answer: n
    ```

The answer's letter is moved 13 places on in the alphabet (a is n, b is o, c is p, d is q), so that nobody reads it by
accident. On the page, it is encoded together with the feedback, and _static/quiz.js shows the feedback to a choice.
"""

import base64
import codecs
import json

import yaml
from docutils import nodes
from sphinx.util.docutils import SphinxDirective


def questions(text: str) -> list[dict]:
    """Return the questions in a block, the answers as the choices' letters.

    Raises:
        ValueError: A part of a question is missing, a choice has no feedback, or the answer is not one of the choices.
    """
    found = yaml.safe_load(text)
    for number, question in enumerate(found, start=1):
        if set(question) != {"question", "choices", "feedback", "answer"}:
            has = ", ".join(question)
            raise ValueError(f"question {number} needs question, choices, feedback, answer, but has {has}")
        choices, feedback = (", ".join(question[part]) for part in ("choices", "feedback"))
        question["answer"] = codecs.decode(question["answer"], "rot13")
        if len(question["choices"]) < 2 or choices != feedback:
            raise ValueError(f"question {number} has choices {choices} and feedback for {feedback}")
        if question["answer"] not in question["choices"]:
            raise ValueError(f"question {number}: {question['answer']!r} is not one of its choices {choices}")
    return found


class Quiz(SphinxDirective):
    """A block of questions."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return a form for each question: choices as radio buttons, a button, and a place for the feedback."""
        try:
            found = questions("\n".join(self.content))
        except (ValueError, yaml.YAMLError) as error:
            raise self.error(f"quiz: {error}") from error
        parts = []
        for question in found:
            name = f"quiz-{self.env.new_serialno('quiz')}"
            told = [[letter == question["answer"], text] for letter, text in question["feedback"].items()]
            encoded = base64.b64encode(json.dumps(told).encode()).decode()
            parts += [f'<form class="quiz" data-feedback="{encoded}"><fieldset><legend>']
            parts += [*self.parse_inline(question["question"])[0], "</legend>"]
            for number, (letter, text) in enumerate(question["choices"].items()):
                # The letter names a choice that consists only of a formula.
                parts += [f'<label><input type="radio" name="{name}" value="{number}"><span>{letter}. ']
                parts += [*self.parse_inline(text)[0], "</span></label>"]
            parts += ['<button type="submit">Check</button><p role="status"></p>']
            parts += [
                "<noscript><p>Checking needs JavaScript; the launch notebooks have the answers as text.</p></noscript>"
            ]
            parts += ["</fieldset></form>"]
        return [nodes.raw("", part, format="html") if isinstance(part, str) else part for part in parts]


def setup(app) -> dict:
    """Register with Sphinx."""
    app.add_directive("quiz", Quiz)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
