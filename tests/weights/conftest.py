import pytest

from coset.runs.folder import RunFolder


class Killed(BaseException):
    """Stands for a signal: nothing catches it on the way out."""


@pytest.fixture
def same_after_a_kill(tmp_path, monkeypatch):
    """Checks that a recipe's run, killed after some of its pieces and begun again, ends as if nothing had happened."""
    original, done, limit = RunFolder.part, [], [10**9]

    def part(folder, name, compute):
        def counted():
            if len(done) >= limit[0]:
                raise Killed
            value = compute()
            done.append(name)
            return value

        return original(folder, name, counted)

    def check(recipe, *, after=None):
        """``after``: numbers of pieces; by default one, and all but one."""
        monkeypatch.setattr(RunFolder, "part", part)
        whole = recipe.run(tmp_path / "whole", quiet=True)
        names = list(done)
        assert len(set(names)) == len(names) > 1, "pieces need names of their own, and more than one"
        for number in after or sorted({1, len(names) - 1}):
            done.clear()
            limit[0], folder = number, tmp_path / f"after-{number}"
            with pytest.raises(Killed):
                recipe.run(folder, quiet=True)
            assert recipe.folder(folder).status()["state"] == "failed"
            limit[0] = 10**9
            metrics = recipe.run(folder, quiet=True)
            assert done == names, "the second run does what is missing, and nothing again"
            assert without_times(metrics) == without_times(whole)
            assert recipe.report(folder).is_file()
        return whole

    return check


def without_times(value):
    """Metrics but for what was measured with a clock."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if "seconds" not in key}
    return [without_times(entry) for entry in value] if isinstance(value, list | tuple) else value
