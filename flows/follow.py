"""Continuous evaluation: beside a training run, its checkpoints become points of percentile tracks (VeLO, E.2).

The workers are its own: never those of `keirin up` or of the training, and at a lower priority
(`flows.workers.niceness`), so that where cores are short the training gets about ten times their share. What it
loses all the same has not been measured; memory is not shared out, each worker may use `--memory-limit`.
"""

from __future__ import annotations

import time

from prefect import flow

from flows.evaluation.settings import evaluation_config, evaluation_tasks
from flows.following.checkpoints import Follower
from flows.following.followed_run import find_run, is_complete, is_running
from flows.interrupt import raise_if_stop_requested
from flows.parameters import FollowParameters
from flows.prefect_artifacts import publish_image, publish_table
from flows.promotion.gate_files import read_gate
from flows.reporting import TrackReport, track_png
from flows.session import Session, current_session, use_session

NICENESS = 10
"""To Linux, a tenth of the weight of a training at the usual 0; at 19 evaluation would hardly move beside one."""
SLICE_SECONDS = 0.2


def run_following(parameters: FollowParameters, session: Session) -> TrackReport | None:
    """Follows a run to its end. Returns its track; None if it had no checkpoint that could be evaluated.

    Raises:
      UnknownNameError: If there is no such run.
    """
    run = find_run(parameters.run, session)
    follower = Follower(
        run,
        evaluation_tasks(parameters),
        evaluation_config(parameters),
        set_name=" + ".join(parameters.evaluation_sets),
        gate=None if parameters.promote is None else read_gate(parameters.promote),
        session=session,
    )
    session.reporter.line(f"{run}, on {' + '.join(parameters.evaluation_sets)}")
    complete = False
    try:
        _follow(follower, parameters, session)
        complete = True
    finally:
        follower.close(complete=complete)
    return follower.report


def _follow(follower: Follower, parameters: FollowParameters, session: Session) -> None:
    """Evaluates until there is nothing left and nothing to come."""
    has_said = False
    while True:
        # Asked before looking: what a complete run saved is there by then.
        over = parameters.once or is_complete(follower.run, session)
        raise_if_stop_requested()
        if follower.evaluate_next():
            continue
        if over:
            return
        if not has_said and not is_running(follower.run, session):
            has_said = True
            session.reporter.line("it isn't running now: waiting for it to go on; Ctrl-C ends this")
        _wait(parameters.poll_seconds)


def _wait(seconds: float) -> None:
    """Sleeps, and hears a Ctrl-C."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        raise_if_stop_requested()
        time.sleep(min(left, SLICE_SECONDS))


@flow(name="follow", flow_run_name="{parameters.run}")
def follow(parameters: FollowParameters = FollowParameters()) -> int:
    """Evaluates a training run's checkpoints as they appear. Returns how many have been evaluated."""
    with current_session() as shared:
        shared.reporter.heading("follow")
        settings = shared.settings.model_copy(
            update={"num_workers": parameters.workers, "scheduler": None, "niceness": NICENESS}
        )
        with use_session(shared.with_own_workers(settings)) as session:
            report = run_following(parameters, session)
    if report is None or not report.points:
        return 0
    rows = [
        {
            "outer step": p.outer_step,
            **{f"{q} %": p.text(str(q), value) for q, value in p.percentiles},
            "decision": p.decision,
        }
        for p in report.points
    ]
    publish_table("percentile-tracks", rows, "Speed-up over the normaliser: percentiles over tasks.")
    publish_image("percentile-tracks-plot", track_png(report), "Percentiles over tasks, by outer step.")
    return len(report.points)
