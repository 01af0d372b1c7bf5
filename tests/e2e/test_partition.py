"""A manager cut off from the others."""

from lib.cluster import SERVICE, Cluster


def test_a_cut_off_manager_refuses_writes_while_the_majority_goes_on_and_healing_disturbs_nobody(web: Cluster):
    leader = web.leader()
    cut_off = next(h.name for h in web.up() if h.plan.is_manager and h.name != leader)

    web.lab.host(cut_off).partition()
    web.until(
        lambda: bool(web.pyswarm("service", "scale", "-d", f"{SERVICE}=5", on=leader)), "the majority's write", 10
    )
    complaint = web.refused("service", "scale", "-d", f"{SERVICE}=9", on=cut_off)
    assert "majority" in complaint
    web.until(
        lambda: len([r for r in web.running(on=leader) if r.host != cut_off]) == 5, "five replicas in the majority", 30
    )
    term = web.info(leader)["Term"]
    elsewhere = {r.id for r in web.running(on=leader) if r.host != cut_off}

    web.lab.host(cut_off).heal()
    web.recover()
    web.until(
        lambda: web.info(cut_off)["AppliedVersion"] >= web.info(leader)["AppliedVersion"] - 5, "it to catch up", 30
    )
    assert web.leader() == leader
    assert web.info(leader)["Term"] == term, "its return forced an election"
    web.until(lambda: not web.containers(web.lab.host(cut_off)), "its replaced replicas to stop", 20)
    assert {r.id for r in web.running()} == elsewhere


def test_a_cut_off_leader_stops_leading_and_its_writes_are_refused(web: Cluster):
    leader = web.leader()
    others = [h.name for h in web.up() if h.plan.is_manager and h.name != leader]

    web.lab.host(leader).partition()
    web.until(lambda: bool(web.pyswarm("service", "scale", "-d", f"{SERVICE}=4", on=others[0])), "a new leader", 10)
    assert "majority" in web.refused("service", "scale", "-d", f"{SERVICE}=9", on=leader)

    web.lab.host(leader).heal()
    web.recover()
    # It follows again, and tells what was decided without it.
    web.until(
        lambda: web.pyswarm("service", "ls", "--format", "{{.Replicas}}", on=leader).strip().endswith("/4"),
        "the old leader to follow",
        10,
    )
