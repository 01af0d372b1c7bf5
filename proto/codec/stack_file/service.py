"""One entry of `services:` → a ServiceSpec."""

from collections.abc import Mapping

from pyswarm.proto.codec.stack_file.deploy import deployment_of
from pyswarm.proto.codec.stack_file.document import failure
from pyswarm.proto.codec.stack_file.endpoints import mounts_of, ports_of
from pyswarm.proto.codec.stack_file.health import check_of, pre_stop_of
from pyswarm.proto.codec.stack_file.logging import log_driver_of
from pyswarm.proto.codec.stack_file.payloads import Known, configs_used, secrets_used
from pyswarm.proto.codec.stack_file.reader import Section
from pyswarm.proto.codec.stack_file.surroundings import hosts_of, one_or_many, sysctls_of, ulimits_of
from pyswarm.proto.codec.stack_file.variables import ReadText, variables_of
from pyswarm.proto.codec.stack_file.vocabulary import SERVICE
from pyswarm.proto.model.objects import STACK_LABEL
from pyswarm.proto.model.spec import ContainerSpec, EndpointSpec, ServiceSpec, TaskSpec


def service_of(
    service: Section,
    *,
    name: str,
    stack: str,
    environment: Mapping[str, str],
    secrets: Known,
    configs: Known,
    read_text: ReadText,
) -> tuple[ServiceSpec, list[str]]:
    """Return the spec of service `name` of `stack`, and warnings. Raises InvalidStackFile.

    `environment` gives values to variables that the file passes through without one; `secrets` and `configs` are
    those that the file lists; `read_text` reads the files of variables that it names.
    """
    warnings: list[str] = []
    service.check_keys(SERVICE, warnings)
    if not service.text("image"):
        raise failure(
            service.place, f"{service.path} has no image", "Write image: NAME[:TAG] of an image in a registry."
        )
    deployment = deployment_of(service, warnings)
    container = ContainerSpec(
        image=service.text("image"),
        command=service.words("entrypoint"),
        args=service.words("command"),
        env=variables_of(service, environment, read_text, warnings),
        dir=service.text("working_dir"),
        user=service.text("user"),
        hostname=service.text("hostname"),
        labels=_labels(service, stack),
        mounts=mounts_of(service, warnings),
        stop_signal=service.text("stop_signal"),
        stop_grace_period_seconds=service.duration("stop_grace_period", ContainerSpec().stop_grace_period_seconds),
        capability_add=service.texts("cap_add"),
        capability_drop=service.texts("cap_drop"),
        read_only=service.flag("read_only"),
        init=service.flag("init"),
        tty=service.flag("tty"),
        open_stdin=service.flag("stdin_open"),
        oom_score_adj=service.whole("oom_score_adj", least=-1000),
        secrets=secrets_used(service, secrets, warnings),
        configs=configs_used(service, configs, warnings),
        healthcheck=check_of(service, "healthcheck", warnings),
        readiness=check_of(service, "readiness", warnings),
        pre_stop=pre_stop_of(service, warnings),
        drain_delay_seconds=service.duration("drain_delay"),
        dns_servers=one_or_many(service, "dns"),
        dns_search=one_or_many(service, "dns_search"),
        dns_options=service.texts("dns_opt"),
        extra_hosts=hosts_of(service),
        sysctls=sysctls_of(service),
        ulimits=ulimits_of(service, warnings),
    )
    spec = ServiceSpec(
        name=f"{stack}_{name}",
        labels=_labels(service.section("deploy"), stack),
        task_template=TaskSpec(
            container_spec=container,
            resources=deployment.resources,
            restart_policy=deployment.restart_policy,
            placement=deployment.placement,
            log_driver=log_driver_of(service, warnings),
        ),
        mode=deployment.mode,
        update_config=deployment.update_config,
        rollback_config=deployment.rollback_config,
        move_config=deployment.move_config,
        schedule=deployment.schedule,
        endpoint_spec=EndpointSpec(ports=ports_of(service, warnings)),
    )
    return spec, warnings


def _labels(section: Section, stack: str) -> dict[str, str]:
    labels = {name: value or "" for name, value, _ in section.pairs("labels")}
    return {**labels, STACK_LABEL: stack}
