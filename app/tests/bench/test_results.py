from __future__ import annotations

import json

from bench.report import tables, write_records
from bench.results import CHAT, IDLE, LOGIN, Cell, Sample, faulty, make_records, ratio_of_costs

CHAT_CELL = Cell(CHAT, tls=True, window=10, sm=True)
VERSIONS = {"monktalk": "0.1.0", "ejabberd": "23.01-1"}
FIELDS = {
    "server", "version", "workload", "tls", "window", "sm", "archive", "cpu_us", "wall_per_s", "p50_ms", "p99_ms",
    "kib", "lost", "duplicated",
}  # fmt: skip


def chat(cpu_us: float, **faults: int) -> Sample:
    return Sample(cpu_us=cpu_us, wall_per_s=1000.0, p50_ms=1.0, p99_ms=2.0, faults=faults)


def records(results, subject="monktalk"):
    return make_records(results, VERSIONS, "PLAIN", subject)


def test_record_has_medians_sums_of_faults_and_all_fields():
    results = {CHAT_CELL: {"monktalk": [chat(9.0), chat(7.0, lost=1), chat(30.0, lost=2, duplicated=1)]}}
    (record,) = records(results)
    assert set(record) >= FIELDS
    assert (record["server"], record["version"], record["workload"]) == ("monktalk", "0.1.0", "chat")
    assert (record["tls"], record["window"], record["sm"], record["archive"]) == (True, 10, True, False)
    assert (record["cpu_us"], record["kib"], record["lost"], record["duplicated"]) == (9.0, None, 3, 1)


def test_ratio_pairs_the_repetitions():
    # The machine was twice as slow in the second repetition, for both.
    assert ratio_of_costs([chat(90.0), chat(180.0), chat(91.0)], [chat(10.0), chat(20.0), chat(9.0)]) == 9.0


def test_repetition_that_failed_is_left_out_of_the_ratio():
    assert ratio_of_costs([chat(90.0), chat(1.0)], [chat(10.0), None]) == 9.0
    assert ratio_of_costs([None], [chat(10.0)]) is None


def test_cost_of_a_login_includes_the_authentication_service():
    own, peer = Sample(cpu_us=500.0, extra={"auth_cpu_us": 300.0}), Sample(cpu_us=1600.0)
    assert ratio_of_costs([peer], [own]) == 2.0


def test_only_the_subject_has_ratios_and_servers_without_a_sample_have_no_record():
    results = {CHAT_CELL: {"monktalk": [chat(10.0)], "ejabberd": [chat(80.0)], "prosody": [None]}}
    by_server = {record["server"]: record for record in records(results)}
    assert by_server["monktalk"]["ratios"] == {"ejabberd": 8.0}
    assert "ratios" not in by_server["ejabberd"]
    assert "prosody" not in by_server


def test_every_kind_of_fault_is_reported():
    for fault in ("lost", "duplicated", "damaged", "misdelivered", "reordered", "unacknowledged"):
        assert faulty(records({CHAT_CELL: {"monktalk": [chat(1.0, **{fault: 1})]}})), fault
    assert not faulty(records({CHAT_CELL: {"monktalk": [chat(1.0)]}}))


def test_tables_show_each_workload_and_how_servers_compare():
    results = {
        CHAT_CELL: {"monktalk": [chat(10.0)], "ejabberd": [chat(85.0)]},
        Cell(LOGIN, tls=False, window=None, sm=False): {"monktalk": [chat(500.0)]},
        Cell(IDLE, tls=False, window=None, sm=False): {"monktalk": [Sample(kib=21.5)]},
    }
    text = tables(records(results), "monktalk")
    lines = [line.split() for line in text.splitlines()]
    assert lines[2][:7] == ["TLS,", "window", "10,", "with", "acks", "monktalk", "0.1.0"]
    assert lines[3] == ["ejabberd", "23.01-1", "85.0", "1,000", "1.0", "2.0", "0", "0", "8.50"]
    assert ["plain", "monktalk", "0.1.0", "21.5", "-"] in lines


def test_records_are_written_as_a_json_list(tmp_path):
    path = tmp_path / "var" / "latest.json"
    written = records({CHAT_CELL: {"monktalk": [chat(9.0)]}})
    write_records(written, path)
    assert json.loads(path.read_text()) == written
    assert list(path.parent.iterdir()) == [path]
