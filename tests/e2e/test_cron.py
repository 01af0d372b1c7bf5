"""A scheduled job on real nodes: it runs at its minute, once, although the leader has changed meanwhile."""

import json

from lib.cluster import REGISTRY, Cluster


def test_a_scheduled_job_runs_once_at_its_minute_although_the_leader_changed(web: Cluster):
    create = ("service", "create", "--name", "tick", "--cron", "* * * * *", "--entrypoint", "/bin/true")
    assert "scheduled" in web.pyswarm(*create, f"{REGISTRY}/web:1")
    try:
        leader = web.leader()
        web.pyswarm("node", "demote", leader)
        web.until(lambda: web.leader() != leader, "another leader", 30)

        def runs() -> list[dict[str, object]]:
            (service,) = json.loads(web.pyswarm("service", "inspect", "tick"))
            return [r for r in (*service.get("EarlierRuns", []), service["JobStatus"]) if r.get("ScheduledAt")]

        web.until(lambda: any(run["State"] == "complete" for run in runs()), "a run to complete", 80)
        moments = [run["ScheduledAt"] for run in runs()]
        assert len(set(moments)) == len(moments)
        assert all(str(moment).endswith(":00.000000Z") for moment in moments)
        assert len(web.replicas("tick")) == len(moments)
        web.pyswarm("node", "promote", leader)
        web.until(lambda: leader in web.managers(), f"{leader} to be a manager again", 30)
    finally:
        web.pyswarm("service", "rm", "tick")
