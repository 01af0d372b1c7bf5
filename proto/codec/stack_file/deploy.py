"""The `deploy:` section of a service: mode, resources, restart, placement, update and rollback."""

from dataclasses import dataclass

from pyswarm.proto.codec.stack_file.document import Table, failure
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.vocabulary import (
    DEPLOY,
    DISCRETE_RESOURCE,
    GENERIC_RESOURCE,
    LIMITS,
    MOVE_CONFIG,
    PLACEMENT,
    PREFERENCE,
    RESERVATIONS,
    RESOURCES,
    RESTART_POLICY,
    SCHEDULE,
    UPDATE_CONFIG,
)
from pyswarm.proto.model.resources import GenericResource, ResourceRequirements, Resources
from pyswarm.proto.model.spec import (
    MODES,
    PRIORITY_MAX,
    CronSchedule,
    GlobalJob,
    GlobalMode,
    MoveConfig,
    Placement,
    ReplicatedJob,
    ReplicatedMode,
    RestartPolicy,
    ServiceMode,
    UpdateConfig,
)
from pyswarm.proto.model.states import Concurrency, FailureAction, PlacementStrategy, RestartCondition, UpdateOrder

_MODES = {name: name for name in MODES}
_CONDITIONS = {
    "none": RestartCondition.NONE,
    "on-failure": RestartCondition.ON_FAILURE,
    "any": RestartCondition.ANY,
}
_ACTIONS = {
    "pause": FailureAction.PAUSE,
    "continue": FailureAction.CONTINUE,
    "rollback": FailureAction.ROLLBACK,
}
_ROLLBACK_ACTIONS = {name: action for name, action in _ACTIONS.items() if name != "rollback"}
_CONCURRENCIES = {"forbid": Concurrency.FORBID, "allow": Concurrency.ALLOW, "replace": Concurrency.REPLACE}
_STRATEGIES = {"spread": PlacementStrategy.SPREAD, "binpack": PlacementStrategy.BINPACK}
_ORDERS = {"stop-first": UpdateOrder.STOP_FIRST, "start-first": UpdateOrder.START_FIRST}


@dataclass(frozen=True)
class Deployment:
    """What `deploy:` says, ready to go into a ServiceSpec."""

    mode: ServiceMode
    resources: ResourceRequirements
    restart_policy: RestartPolicy
    placement: Placement
    update_config: UpdateConfig
    rollback_config: UpdateConfig
    move_config: MoveConfig
    schedule: CronSchedule | None


def deployment_of(service: Section, warnings: list[str]) -> Deployment:
    """Return the service's deployment, Swarm's defaults where nothing is said. Raises InvalidStackFile."""
    deploy = service.section("deploy")
    deploy.check_keys(DEPLOY, warnings)
    return Deployment(
        mode=_mode(deploy),
        resources=_resources(deploy, warnings),
        restart_policy=_restart_policy(deploy, warnings),
        placement=_placement(deploy, warnings),
        update_config=_update_config(deploy, "update_config", warnings),
        rollback_config=_update_config(deploy, "rollback_config", warnings),
        move_config=_move_config(deploy, warnings),
        schedule=_schedule(deploy, warnings),
    )


def _mode(deploy: Section) -> ServiceMode:
    # What runs by a schedule is a job.
    mode = deploy.choice("mode", _MODES, "replicated" if deploy.get("schedule") is None else "replicated-job")
    replicas = deploy.get("replicas")
    if mode in ("global", "global-job") and replicas is not None:
        raise failure(
            replicas.place,
            f"{deploy.name('replicas')} goes with mode: replicated or replicated-job only",
            "A global service runs once on every node: remove replicas.",
        )
    if mode == "global":
        return ServiceMode(global_mode=GlobalMode())
    if mode == "global-job":
        return ServiceMode(global_job=GlobalJob())
    count = deploy.whole("replicas", 1)
    if mode == "replicated-job":
        return ServiceMode(replicated_job=ReplicatedJob(max_concurrent=count, total_completions=count))
    return ServiceMode(replicated=ReplicatedMode(replicas=count))


def _resources(deploy: Section, warnings: list[str]) -> ResourceRequirements:
    resources = deploy.section("resources")
    resources.check_keys(RESOURCES, warnings)
    limits, reservations = resources.section("limits"), resources.section("reservations")
    limits.check_keys(LIMITS, warnings)
    reservations.check_keys(RESERVATIONS, warnings)
    return ResourceRequirements(
        limits=Resources(limits.cpus("cpus"), limits.size("memory"), limits.whole("pids")),
        reservations=Resources(
            reservations.cpus("cpus"),
            reservations.size("memory"),
            reservations.whole("pids"),
            _generic_resources(reservations, warnings),
        ),
    )


def _generic_resources(reservations: Section, warnings: list[str]) -> tuple[GenericResource, ...]:
    found = []
    for item in reservations.items("generic_resources"):
        if not isinstance(item, Table):
            raise reservations.wrong("generic_resources", item, "a list of `discrete_resource_spec: {kind, value}`")
        entry = Section(item, reservations.name("generic_resources"))
        entry.check_keys(GENERIC_RESOURCE, warnings)
        discrete = entry.section("discrete_resource_spec")
        discrete.check_keys(DISCRETE_RESOURCE, warnings)
        found.append(GenericResource(discrete.text("kind"), discrete.whole("value", 1)))
    return tuple(found)


def _restart_policy(deploy: Section, warnings: list[str]) -> RestartPolicy:
    policy = deploy.section("restart_policy")
    policy.check_keys(RESTART_POLICY, warnings)
    default = RestartPolicy()
    return RestartPolicy(
        condition=policy.choice("condition", _CONDITIONS, default.condition),
        delay_seconds=policy.duration("delay", default.delay_seconds),
        max_attempts=policy.whole("max_attempts", default.max_attempts),
        window_seconds=policy.duration("window", default.window_seconds),
        max_delay_seconds=policy.duration("max_delay", default.max_delay_seconds),
    )


def _placement(deploy: Section, warnings: list[str]) -> Placement:
    placement = deploy.section("placement")
    placement.check_keys(PLACEMENT, warnings)
    preferences = []
    for item in placement.items("preferences"):
        if not isinstance(item, Table):
            raise placement.wrong("preferences", item, "a list of `spread: node.labels.NAME`")
        preference = Section(item, placement.name("preferences"))
        preference.check_keys(PREFERENCE, warnings)
        preferences.append(preference.text("spread"))
    return Placement(
        constraints=placement.texts("constraints"),
        preferences=tuple(preferences),
        max_replicas=placement.whole("max_replicas_per_node"),
        affinities=placement.texts("affinities"),
        strategy=placement.choice("strategy", _STRATEGIES, Placement().strategy),
        priority=placement.whole("priority", least=-PRIORITY_MAX),
    )


def _update_config(deploy: Section, key: str, warnings: list[str]) -> UpdateConfig:
    config = deploy.section(key)
    config.check_keys(UPDATE_CONFIG, warnings)
    default = UpdateConfig()
    actions = _ACTIONS if key == "update_config" else _ROLLBACK_ACTIONS
    return UpdateConfig(
        parallelism=config.whole("parallelism", default.parallelism),
        delay_seconds=config.duration("delay", default.delay_seconds),
        failure_action=config.choice("failure_action", actions, default.failure_action),
        monitor_seconds=config.duration("monitor", default.monitor_seconds),
        max_failure_ratio=config.ratio("max_failure_ratio"),
        order=config.choice("order", _ORDERS, default.order),
        progress_deadline_seconds=config.duration("progress_deadline", default.progress_deadline_seconds),
        canary=config.texts("canary"),
    )


def _move_config(deploy: Section, warnings: list[str]) -> MoveConfig:
    config = deploy.section("move_config")
    config.check_keys(MOVE_CONFIG, warnings)
    default = MoveConfig()
    return MoveConfig(
        parallelism=config.whole("parallelism", default.parallelism),
        order=config.choice("order", _ORDERS, default.order),
        rebalances=config.choice("rebalance", {"auto": True, "manual": False}, default.rebalances),
    )


def _schedule(deploy: Section, warnings: list[str]) -> CronSchedule | None:
    if deploy.get("schedule") is None:
        return None
    schedule = deploy.section("schedule")
    schedule.check_keys(SCHEDULE, warnings)
    default = CronSchedule()
    return CronSchedule(
        expression=schedule.text("cron"),
        time_zone=schedule.text("time_zone", default.time_zone),
        concurrency=schedule.choice("concurrency", _CONCURRENCIES, default.concurrency),
        missed_run_window_seconds=schedule.duration("missed_run_window", default.missed_run_window_seconds),
        keep_completed=schedule.whole("keep_completed", default.keep_completed),
        keep_failed=schedule.whole("keep_failed", default.keep_failed),
        suspended=schedule.flag("suspend"),
    )
