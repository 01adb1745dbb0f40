"""What holds for every route: credentials, Content-Length, statuses that the XMPP server knows."""

from __future__ import annotations

import base64

import pytest

from monktalk.auth.views import PREFIX
from tests.unit.auth.conftest import PASSWORD, USERNAME, authorization, outcome

CONTRACT = {
    "user_exists": "GET",
    "check_password": "GET",
    "get_password": "GET",
    "get_certs": "GET",
    "register": "POST",
    "set_password": "POST",
    "remove_user": "POST",
    "remove_user_validate": "POST",
}


def routes(app):
    """Every route with every method that it takes."""
    for rule in app.url_map.iter_rules():
        for method in sorted(rule.methods or ()):
            yield rule.rule, method


def test_there_are_the_routes_of_the_contract_and_no_others(service):
    found = {path: method for path, method in routes(service.app) if method in ("GET", "POST")}
    assert found == {f"{PREFIX}/{name}": method for name, method in CONTRACT.items()}


WRONG = {
    "none": {},
    "wrong password": authorization(password="Open sesame"),
    "wrong user": authorization(username="Xmpp"),
    "empty": authorization("", ""),
    "prefix": authorization(password=PASSWORD[:-1]),
    "another scheme": {"Authorization": "Bearer " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()},
    "no base64": {"Authorization": "Basic ????"},
    "not ascii": {"Authorization": "Basic é"},
    "in the clear": {"Authorization": f"Basic {USERNAME}:{PASSWORD}"},
}


@pytest.mark.parametrize("case", WRONG)
def test_every_route_wants_the_credentials_of_the_service(service, database, case):
    database.insert("alice", "secret")
    form = "user=alice&server=example.org&pass=secret"
    answers = set()
    with service.app.test_client() as client:
        paths = [*routes(service.app), ("/", "GET"), ("/authorize/", "GET"), ("/authorize/nothing", "POST")]
        for path, method in paths:
            response = client.open(path, method=method, query_string=form, data=form, headers=WRONG[case])
            assert response.headers["WWW-Authenticate"].startswith("Basic realm=")
            answers.add((response.status_code, response.headers["Content-Length"]))
    assert {status for status, _ in answers} == {401}
    assert len(answers) == 1, "what exists is not told apart from what does not"
    assert database.token("alice") == "secret"


def test_the_scheme_is_read_in_any_case(service):
    headers = {"Authorization": authorization()["Authorization"].replace("Basic", "bASIC")}
    assert service.send("GET", "/authorize/nothing", headers=headers).status_code == 404


def test_every_answer_has_a_length_and_is_not_stored(service, database):
    database.insert("alice", "secret")
    for name in CONTRACT:
        response = service.call(name, "alice", "secret")
        assert int(response.headers["Content-Length"]) == len(response.data)
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert "Transfer-Encoding" not in response.headers


def test_paths_and_methods_that_do_not_exist_are_refused(service):
    assert service.send("GET", "/authorize/nothing").status_code == 404
    assert service.send("GET", "/").status_code == 404
    response = service.send("POST", "/authorize/user_exists")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]
    assert service.send("GET", "/authorize/register").status_code == 405


def test_a_body_that_is_too_long_is_a_refusal_and_no_outage(service):
    response = service.send("POST", "/authorize/register", data=b"x" * 100_000)
    assert outcome(response) == (400, "The body has more than 32768 bytes.")


def test_callers_without_credentials_do_not_flood_the_log(service, caplog):
    with service.app.test_client() as client:
        for _ in range(50):
            client.get("/authorize/user_exists")
    assert caplog.messages.count("caller_refused") == 1


def test_a_fault_of_the_service_is_told_without_its_text(service, monkeypatch, caplog):
    def fail(*arguments):
        raise RuntimeError("s3cret")

    monkeypatch.setattr("monktalk.auth.views.parse_form", fail)
    response = service.call("check_password", "alice", "s3cret")
    assert outcome(response) == (500, "The service has failed.")
    record = next(record for record in caplog.records if record.message == "call_failed")
    assert record.fields["exception"] == "RuntimeError"
    assert "test_app.py" in record.fields["places"][-1]
    assert "s3cret" not in str([record.__dict__ for record in caplog.records])
