"""What all calls to AWS have in common, whichever of its services they are for."""

from __future__ import annotations

import logging

CREDENTIALS = "name some by AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials"
"""How to mend that there are none, or not the right ones."""


def silence() -> None:
    """botocore logs whole requests and answers, with keys, tokens and user data: never, not even by --debug."""
    for name in ("boto3", "botocore", "urllib3", "s3transfer"):
        logging.getLogger(name).setLevel(logging.WARNING)
