"""Which registry the environment names, as MLflow's own client reads it."""

from __future__ import annotations

import base64

import pytest

from rollout.mlflow_server import MlflowServer, registry_server, shown_address

URL = "https://mlflow.example:5000"


def basic(user: str) -> dict[str, str]:
    return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}


@pytest.mark.parametrize(
    ("environ", "server"),
    [
        ({}, None),
        ({"MLFLOW_TRACKING_URI": "sqlite:///runs.db"}, None),
        ({"MLFLOW_TRACKING_URI": f"{URL}/"}, MlflowServer(URL, {})),
        ({"MLFLOW_TRACKING_URI": "http://other", "MLFLOW_REGISTRY_URI": URL}, MlflowServer(URL, {})),
        (
            {"MLFLOW_TRACKING_URI": "https://ada:p%40ss@mlflow.example:5000/under"},
            MlflowServer(f"{URL}/under", basic("ada:p@ss")),
        ),
        (
            {
                "MLFLOW_TRACKING_URI": URL,
                "MLFLOW_TRACKING_USERNAME": "ada",
                "MLFLOW_TRACKING_PASSWORD": "secret",
                "MLFLOW_TRACKING_TOKEN": "unused",
            },
            MlflowServer(URL, basic("ada:secret")),
        ),
        (
            {"MLFLOW_TRACKING_URI": URL, "MLFLOW_TRACKING_TOKEN": "t", "MLFLOW_TRACKING_INSECURE_TLS": "true"},
            MlflowServer(URL, {"Authorization": "Bearer t"}, verify=False),
        ),
        (
            {"MLFLOW_TRACKING_URI": URL, "MLFLOW_TRACKING_SERVER_CERT_PATH": "/etc/ca.pem"},
            MlflowServer(URL, {}, "/etc/ca.pem"),
        ),
    ],
)
def test_a_server_by_the_variables_of_mlflow(environ: dict[str, str], server: MlflowServer | None) -> None:
    assert registry_server(environ) == server


def test_an_address_is_shown_without_credentials() -> None:
    assert shown_address("http://ada:s3cret@host:5000/?token=s3cret") == "http://host:5000"
    assert shown_address("sqlite:///runs.db") == "sqlite:///runs.db"
