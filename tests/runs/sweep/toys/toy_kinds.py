"""Two kinds of run that take no time, of a distribution of their own, so that processes of a sweep know them too."""

import json
import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
from pydantic import Field, model_validator

from coset.core.domains import Domain
from coset.core.errors import CosetError
from coset.core.options import Options
from coset.runs.folder import HISTORY, LAST
from coset.runs.recipe import Recipe


class Training(Options):
    epochs: int = 9
    monitor: Literal["rmse", "mae", "accuracy"] = "rmse"
    wait: float = 0.0
    """Seconds an epoch."""


class Toy(Recipe):
    """What every kind needs."""

    x: float = 0.0
    width: int = Field(1, ge=1)
    refused: bool = False
    limit: float | None = None

    @model_validator(mode="after")
    def _together(self):
        if self.limit is not None and self.x + self.width > self.limit:
            raise ValueError(f"x and width are together at most {self.limit:g}")
        return self

    def page(self, folder, metrics):
        folder.write_text("report.html", "a toy")
        return folder / "report.html"

    def summary(self, metrics):
        return ["rmse"], [[str(metrics["test"])]]

    def prepare(self, run):
        if self.refused:
            raise CosetError("there is no such toy")


class Descent(Toy):
    """Comes closer to (x - 3)^2 + width / 10 with every epoch."""

    counts_epochs: ClassVar[bool] = True

    kind: Literal["descent"] = "descent"
    training: Training = Field(default_factory=Training)

    def work(self, run, prepared):
        last = run.folder / LAST
        rows = json.loads(last.read_text()) if last.is_file() else []
        for epoch in range(len(rows), self.training.epochs):
            time.sleep(self.training.wait)
            value = (self.x - 3) ** 2 + self.width / 10 + self.seed / 100 + 1 / (epoch + 1)
            rows.append({"epoch": epoch, f"val_{self.training.monitor}": value, "cpu_seconds": 0.5 * (epoch + 1)})
            run.folder.write_text(HISTORY, pd.DataFrame(rows).to_csv(index=False))
            run.folder.write_json(LAST, rows)
            run.at(f"epoch {epoch + 1}")
            if run.on_epoch is not None:
                run.on_epoch(rows[-1])
        best = min(row[f"val_{self.training.monitor}"] for row in rows)
        return {"test": {self.training.monitor: best}, "epochs": len(rows), "params": self.width}


class Score(Toy):
    """One number, and no epochs; its process dies as long as there are marks to take away."""

    kind: Literal["score"] = "score"
    marks: str | None = None

    def work(self, run, prepared):
        if self.marks is not None and (left := sorted(Path(self.marks).iterdir())):
            left[0].unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"found": {"cost": (self.x - 3) ** 2 + self.seed}, "process": os.getpid()}

    def summary(self, metrics):
        return ["cost"], [[str(metrics["found"]["cost"])]]

    @property
    def judged_by(self):
        return "found.cost"


DOMAIN = Domain(name="toys", package="toy_kinds", kinds={"descent": "toy_kinds:Descent", "score": "toy_kinds:Score"})
