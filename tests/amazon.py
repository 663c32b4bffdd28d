"""Amazon on loopback, and S3: moto's server behind a shim that counts every call, and answers some in its own way."""

from __future__ import annotations

import io
import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qs

import pytest
from botocore.loaders import Loader
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import ec2_backends
from moto.ec2.models.fleets import Fleet
from moto.moto_api._internal import moto_api_backend
from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.ssm.models import Parameter, ssm_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

from cluster.master.ec2.client import Cloud

REGION = "us-east-1"
_LOADER = Loader()  # one for all, which keeps what it has read: megabytes for each client
DEBIAN = "/aws/service/debian/release/12/latest/"


@dataclass(frozen=True)
class Call:
    """What a client asked."""

    service: str
    action: str
    parameters: dict[str, str]

    @property
    def right(self) -> str:
        """As IAM calls it."""
        return f"{self.service}:{self.action}"


Fault = Callable[[Call], Response | None]


@dataclass
class Amazon:
    """A server: `faults` are asked, in turn, for an answer before moto is."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    """The Debian image of each architecture, as AWS calls it."""

    def asked(self, action: str) -> list[Call]:
        return [call for call in self.calls if call.action == action]

    def clear(self) -> None:
        """Forget all that was made."""
        moto_api_backend.reset()
        self.calls.clear()
        self.faults.clear()
        self.images = {"x86_64": _image("x86_64", "amd64"), "arm64": _image("arm64", "arm64")}

    @cached_property
    def cloud(self) -> Cloud:
        """One client for all tests of a module, as botocore reads megabytes for each; `cleared` comes before."""
        return Cloud(REGION)

    @property
    def ec2(self) -> Any:
        """What moto has."""
        return ec2_backends[DEFAULT_ACCOUNT_ID][REGION]

    def running(self) -> list[Any]:
        """Instances that are paid for."""
        return [one for one in self.ec2.all_instances() if one.state != "terminated"]


def refusal(code: str, message: str = "because", status: int = 400) -> Response:
    """An error of EC2."""
    text = f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>"
    return Response(text, status=status, content_type="text/xml")


def times(count: int, action: str, answer: Callable[[], Response]) -> Fault:
    """Answers so the first `count` times that `action` is asked for."""
    left = [count]

    def fault(call: Call) -> Response | None:
        if call.action != action or not left[0]:
            return None
        left[0] -= 1
        return answer()

    return fault


def _image(architecture: str, debian: str) -> str:
    image = ec2_backends[DEFAULT_ACCOUNT_ID][REGION].register_image(f"debian-12-{debian}", "")
    image.architecture = architecture
    image.root_device_name = "/dev/xvda"
    name = f"{DEBIAN}{debian}"
    ssm_backends[DEFAULT_ACCOUNT_ID][REGION]._parameters[name] = [_parameter(name, image.id)]
    return str(image.id)


def _parameter(name: str, value: str) -> Parameter:
    return Parameter(
        account_id=DEFAULT_ACCOUNT_ID, name=name, value=value, parameter_type="String", description="",
        allowed_pattern="", keyid=None, last_modified_date=0, version=1, data_type="text",
    )  # fmt: skip


def _call(request: Request) -> Call:
    """What `request` asks; of an object of S3, whose bytes are moto's to read, its method alone."""
    scope = re.search(r"Credential=[^/]+/\d+/[^/]+/([^/]+)/", request.headers.get("Authorization", ""))
    service = scope[1] if scope else ""
    if service == "s3":
        return Call(service, request.method, {})
    body = request.get_data(cache=True).decode()
    request.environ["wsgi.input"] = io.BytesIO(request.get_data())  # it has been read
    target = request.headers.get("X-Amz-Target", "")
    if target:
        return Call(service, target.rpartition(".")[2], {key: str(value) for key, value in json.loads(body).items()})
    fields = {key: values[0] for key, values in parse_qs(body).items()}
    return Call(service, fields.get("Action", ""), fields)


def _shim(amazon: Amazon, moto: Any) -> Any:
    def application(environ: dict[str, Any], start: Any) -> Any:
        call = _call(Request(environ))
        amazon.calls.append(call)
        for fault in amazon.faults:
            answer = fault(call)
            if answer is not None:
                return answer(environ, start)
        return moto(environ, start)

    return application


def _end_fleet(self: Fleet) -> None:
    """moto complains of a fleet whose instances are gone already; Amazon does not."""
    ids = {one for some in self.instances or () for one in some["InstanceIds"]}
    left = [one.id for one in self.ec2_backend.all_instances() if one.id in ids and one.state != "terminated"]
    if left:
        self.ec2_backend.terminate_instances(left)


@contextmanager
def serving() -> Iterator[Amazon]:
    """A server that has nothing."""
    amazon = Amazon()
    moto_api_backend.reset()
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    Fleet.terminate_instances = _end_fleet  # type: ignore[method-assign]
    server = make_server(
        "127.0.0.1", 0, _shim(amazon, DomainDispatcherApplication(create_backend_app)), True,
        request_handler=MotoRequestHandler,
    )  # fmt: skip
    amazon.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield amazon
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def configure(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The environment of a client of the server at `url`."""
    monkeypatch.setattr("botocore.session.create_loader", lambda path=None: _LOADER)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-to-be-logged")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def cleared(server: Amazon, monkeypatch: pytest.MonkeyPatch) -> Amazon:
    """`server` with nothing in it, for a test whose environment is that of its client."""
    configure(monkeypatch, server.url)
    server.clear()
    return server
