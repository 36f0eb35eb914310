"""Asks Spark the questions of a file, over views that another file makes.

    questions.py JARS VIEWS QUESTIONS ANSWERS [TABLE]

ANSWERS has a line for each question: the rows that `sporlog sql --format json` has given, as a JSON array. Prints a line for
each question: its number, whether Spark gives the same rows, and how many they are, or a row that differs.
At the end Spark appends a copy of a record to the Delta table TABLE, as no program but Sporlog must.
"""

import json
import sys
from datetime import date, datetime
from pathlib import Path

from read import session


def statements(file: str) -> list[str]:
    """The statements of a file in which semicolons stand at the ends of lines alone."""
    return [statement for statement in Path(file).read_text().split(";\n") if statement.strip()]


def plain(value):
    """A value as the JSON has it."""
    return value.isoformat() if isinstance(value, (date, datetime)) else value


def main() -> None:
    jars, views, questions, answers, *written = sys.argv[1:]
    spark = session(jars)
    for statement in statements(views):
        spark.sql(statement)
    asked, answered = statements(questions), Path(answers).read_text().splitlines()
    assert len(asked) == len(answered), (len(asked), len(answered))
    for number, (question, answer) in enumerate(zip(asked, answered), 1):
        wanted = json.loads(answer)
        found = [{name: plain(value) for name, value in row.asDict().items()} for row in spark.sql(question).collect()]
        other = next((pair for pair in zip(wanted, found) if pair[0] != pair[1]), None)
        same = other is None and len(wanted) == len(found)
        print(number, "same" if same else "OTHER", f"{len(found)} of {len(wanted)} rows" if other is None else other, flush=True)
    for table in written:
        spark.read.format("delta").load(table).limit(1).write.format("delta").mode("append").save(table)
    spark.stop()


if __name__ == "__main__":
    main()
