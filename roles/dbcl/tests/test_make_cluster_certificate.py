"""The authority of a cluster, and certificates from it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "files/make_cluster_certificate.py"


def make(folder, *words, status=0):
    command = [sys.executable, str(PROGRAM), f"--folder={folder}", "--cluster=dbcl", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout) if status == 0 else done.stderr


def text(certificate):
    command = ["openssl", "x509", "-in", certificate, "-noout", "-text"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_certificate_is_made_once(tmp_path):
    first = make(tmp_path / "ca", "--name=db1", "--address=192.0.2.1")
    assert first["changed"]
    assert not make(tmp_path / "ca", "--name=db1", "--address=192.0.2.1")["changed"]
    shown = text(first["certificate"])
    assert "DNS:db1, IP Address:192.0.2.1" in shown
    assert "TLS Web Server Authentication, TLS Web Client Authentication" in shown
    subprocess.run(["openssl", "verify", "-CAfile", first["ca"], first["certificate"]], check=True, capture_output=True)
    assert Path(first["key"]).stat().st_mode & 0o777 == 0o600


def test_it_is_made_anew_for_other_names_and_before_its_end(tmp_path):
    before = make(tmp_path, "--name=db1", "--address=192.0.2.1")
    authority = Path(before["ca"]).read_bytes()
    assert make(tmp_path, "--name=db1", "--address=192.0.2.9")["changed"]
    assert make(tmp_path, "--name=db1", "--address=192.0.2.9", "--renew-days=800")["changed"]
    assert Path(before["ca"]).read_bytes() == authority


def test_half_an_authority_is_not_replaced(tmp_path):
    make(tmp_path)
    (tmp_path / "ca.key").unlink()
    assert "has no ca.key" in make(tmp_path, "--name=db1", status=1)
