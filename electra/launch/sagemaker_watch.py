"""`electra launch sagemaker --wait`: what a training job is doing, from its state and its log streams."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

GROUP = "/aws/sagemaker/TrainingJobs"
LAST_LINES = 20
"""Lines of the log shown at a look; a run writes one in a minute or so, and what an installation writes is no loss."""


def follow(client: Any, logs: Any, name: str, say: Callable[[str], None], pause: float = 30.0) -> int:
    """Show changes of state and the newest log lines until the job ends; returns the exit code.

    `client` and `logs` are boto3's for sagemaker and logs. ValueError with the service's reason when the job failed.
    """
    say(f"following {name}: Ctrl-C leaves the job running, aws sagemaker stop-training-job ends it")
    states, since, shown = 0, 0, set[str]()
    while True:
        job = client.describe_training_job(TrainingJobName=name)
        changes = job.get("SecondaryStatusTransitions", [])
        for change in changes[states:]:
            say(f"{change['StartTime']:%H:%M:%S} {change['Status']}: {change.get('StatusMessage', '')}".rstrip(": "))
        states = len(changes)
        events = [event for event in _events(logs, name, since) if event["eventId"] not in shown]
        for event in events[-LAST_LINES:]:
            say(f"  {event['message'].rstrip()}")
        if events:
            since, shown = events[-1]["timestamp"], shown | {event["eventId"] for event in events}
        status = job["TrainingJobStatus"]
        if status == "Completed":
            say(f"{name} is done: {job['ModelArtifacts']['S3ModelArtifacts']}")
            return 0
        if status == "Failed":
            raise ValueError(f"{name} failed: {' '.join(job.get('FailureReason', 'no reason given').split())}")
        if status == "Stopped":
            say(f"{name} was stopped")
            return 1
        time.sleep(pause)


def _events(logs: Any, name: str, since: int) -> list[dict[str, Any]]:
    """Log events of all machines from a moment on (milliseconds), in order; none before there is a log."""
    found: list[dict[str, Any]] = []
    try:
        pages = logs.get_paginator("filter_log_events").paginate(
            logGroupName=GROUP, logStreamNamePrefix=f"{name}/", startTime=since
        )
        for page in pages:
            found += page["events"]
    except logs.exceptions.ResourceNotFoundException:
        return []
    return sorted(found, key=lambda event: event["timestamp"])
