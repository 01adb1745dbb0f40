"""The program that builds wheelhouses, but for what needs an index: the lab installs a real one."""

from __future__ import annotations

import importlib.util
import json
import sys
import tarfile
from pathlib import Path

import pytest

_PATH = Path(__file__).parents[1] / "files" / "build_wheelhouse.py"
_SPEC = importlib.util.spec_from_file_location("build_wheelhouse", _PATH)
build = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = build  # dataclasses look their module up
_SPEC.loader.exec_module(build)

TARGET = build.Target("3.13", "x86_64", "2.41")


@pytest.fixture
def source(tmp_path):
    root = tmp_path / "checkout"
    (root / "app/src/monktalk").mkdir(parents=True)
    (root / "pyproject.toml").write_text('[project]\nname = "monktalk"\nversion = "1.2.3"\n')
    (root / "requirements.txt").write_text("idna==3.10 \\\n    --hash=sha256:00\n")
    for name in ("README.md", "LICENSE", "app/src/monktalk/__init__.py"):
        (root / name).write_text(name)
    return root


@pytest.fixture
def output(tmp_path):
    return tmp_path / "wheelhouses"


@pytest.fixture
def builds(monkeypatch):
    """What stands in for a build, and how often it was called."""
    calls = []

    def fake(source, scratch, target, release):
        calls.append(release)
        finished = scratch / "finished"
        finished.mkdir()
        (finished / build.MANIFEST).write_text("{}")
        return finished

    monkeypatch.setattr(build, "_build", fake)
    return calls


def test_a_release_is_named_by_version_and_digest(source):
    version, _, digest = build.release_name(source).partition("-")
    assert version == "1.2.3"
    assert len(digest) == 8
    assert int(digest, 16) >= 0


def test_the_same_sources_are_the_same_release(source):
    name = build.release_name(source)
    (source / "app/src/monktalk/__pycache__").mkdir()
    (source / "app/src/monktalk/__pycache__/x.cpython-313.pyc").write_text("")
    (source / "app/src/monktalk.egg-info").mkdir()
    (source / "app/src/monktalk.egg-info/PKG-INFO").write_text("")
    (source / "app/src/monktalk/.swp").write_text("")
    (source / "app/tests").mkdir()
    (source / "app/tests/test_x.py").write_text("")
    assert build.release_name(source) == name


@pytest.mark.parametrize("changed", ["requirements.txt", "app/src/monktalk/__init__.py", "LICENSE"])
def test_other_sources_are_another_release(source, changed):
    name = build.release_name(source)
    (source / changed).write_text("something else")
    assert build.release_name(source) != name


def test_a_renamed_file_is_another_release(source):
    name = build.release_name(source)
    (source / "app/src/monktalk/__init__.py").rename(source / "app/src/monktalk/__main__.py")
    assert build.release_name(source) != name


def test_an_incomplete_checkout_is_refused(source):
    (source / "requirements.txt").unlink()
    with pytest.raises(build.BuildError, match=r"requirements\.txt is missing"):
        build.release_name(source)


def test_a_lock_file_is_read_with_its_continuations():
    text = """\
        # a comment
        idna==3.10 \\
            --hash=sha256:aa \\
            --hash=sha256:bb
            # via x

        cffi==2 ; x == 'y' \\
            --hash=sha256:cc
    """
    assert list(build.logical_lines(text)) == [
        "idna==3.10 --hash=sha256:aa --hash=sha256:bb",
        "cffi==2 ; x == 'y' --hash=sha256:cc",
    ]


def test_markers_are_taken_off():
    assert build.split_requirement("cffi==2.1.1 ; os_name != 'nt' --hash=sha256:cc --hash=sha256:dd") == (
        "cffi==2.1.1 --hash=sha256:cc --hash=sha256:dd",
        "os_name != 'nt'",
    )
    assert build.split_requirement("idna==3.10 --hash=sha256:aa") == ("idna==3.10 --hash=sha256:aa", None)


@pytest.mark.parametrize("line", ["idna>=3 --hash=sha256:aa", "idna==3.10", "./app --hash=sha256:aa", "-r other.txt"])
def test_what_is_not_locked_is_refused(line):
    with pytest.raises(build.BuildError, match="make lock"):
        build.split_requirement(line)


def test_the_target_says_which_wheels_fit():
    assert TARGET.tag == "cp313-x86_64"
    platforms = TARGET.platforms()
    assert platforms[0] == "manylinux_2_41_x86_64"
    assert {"manylinux_2_17_x86_64", "manylinux_2_28_x86_64", "manylinux2014_x86_64"} <= set(platforms)
    assert "manylinux_2_42_x86_64" not in platforms


@pytest.mark.parametrize("glibc", ["2.12", "1.2"])
def test_a_target_without_fitting_wheels_is_refused(glibc):
    with pytest.raises(build.BuildError, match="glibc"):
        build.Target("3.13", "x86_64", glibc).platforms()


def test_a_wheel_is_required_by_its_hash(tmp_path):
    wheel = tmp_path / "precis_i18n-1.1.2-py3-none-any.whl"
    wheel.write_bytes(b"")
    expected = "precis-i18n==1.1.2 --hash=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert build.wheel_requirement(wheel) == expected


def test_what_was_built_is_used_again(source, output, builds):
    first = build.ensure(source, output, TARGET)
    second = build.ensure(source, output, TARGET)
    assert (first.built, second.built) == (True, False)
    assert first.directory == second.directory == str(output / f"{first.release}-cp313-x86_64")
    assert len(builds) == 1


def test_another_target_has_its_own(source, output, builds):
    one = build.ensure(source, output, TARGET)
    other = build.ensure(source, output, build.Target("3.11", "aarch64", "2.36"))
    assert one.release == other.release
    assert one.directory != other.directory


def test_an_interrupted_build_is_done_again(source, output, builds):
    release = build.release_name(source)
    half = output / f"{release}-cp313-x86_64"
    half.mkdir(parents=True)
    (half / build.ARCHIVE).write_text("half")
    (output / ".building-old").mkdir()
    assert build.ensure(source, output, TARGET).built
    assert not (half / build.ARCHIVE).exists()
    assert not list(output.glob(".building-*"))


def test_a_failed_build_leaves_nothing(source, output, monkeypatch):
    def fail(*_arguments):
        raise build.BuildError("no")

    monkeypatch.setattr(build, "_build", fail)
    with pytest.raises(build.BuildError):
        build.ensure(source, output, TARGET)
    assert [path.name for path in output.iterdir()] == [".lock"]


def test_old_wheelhouses_are_removed(source, output, builds):
    for number in range(build.KEPT + 3):
        (source / "README.md").write_text(str(number))
        newest = build.ensure(source, output, TARGET)
    assert len(list(output.glob(f"*/{build.MANIFEST}"))) == build.KEPT
    assert Path(newest.directory).is_dir()


def test_an_archive_depends_on_contents_only(tmp_path):
    one, other = tmp_path / "a.whl", tmp_path / "b.whl"
    one.write_text("1")
    other.write_text("2")
    build._pack(tmp_path / "x.tar", [one, other])
    one.touch()
    one.chmod(0o600)
    build._pack(tmp_path / "y.tar", [one, other])
    assert (tmp_path / "x.tar").read_bytes() == (tmp_path / "y.tar").read_bytes()
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert [(entry.name, entry.mode, entry.uname) for entry in tar] == [
            ("a.whl", 0o644, "root"),
            ("b.whl", 0o644, "root"),
        ]


def test_the_name_alone_is_told(source, capsys):
    assert build.main(["--source", str(source), "--name-only"]) == 0
    assert json.loads(capsys.readouterr().out) == {"release": build.release_name(source)}


def test_a_failure_is_a_sentence(tmp_path, capsys):
    assert build.main(["--source", str(tmp_path), "--name-only"]) == 1
    assert "complete checkout" in capsys.readouterr().err
