"""Schemas of the kinds that operators add to Kubernetes: the fields that deploy/k8s uses, and no others.

Written after the definitions of the operators (keda.sh/v1alpha1, monitoring.coreos.com/v1). They are strict: a field
that is not here is a mistake, or wants a line here.
"""

from __future__ import annotations

from typing import Any

DURATION = {"type": "string", "pattern": r"^([0-9]+(ms|[smhdwy]))+$"}
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
COUNT = {"type": "integer", "minimum": 0}


def fields(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    """An object with these fields and no others."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **optional},
        "additionalProperties": False,
    }


def items(of: dict[str, Any]) -> dict[str, Any]:
    """A list that is not empty."""
    return {"type": "array", "minItems": 1, "items": of}


def resource(version: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    """A whole resource."""
    name = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}
    metadata = fields({"name": name}, namespace=name, labels=TEXTS, annotations=TEXTS)
    return fields({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": metadata, "spec": spec})


_SCALING = fields(
    {
        "policies": items(
            fields(
                {
                    "type": {"enum": ["Pods", "Percent"]},
                    "value": {"type": "integer", "minimum": 1},
                    "periodSeconds": {"type": "integer", "minimum": 1, "maximum": 1_800},
                }
            )
        )
    },
    stabilizationWindowSeconds={"type": "integer", "minimum": 0, "maximum": 3_600},
    selectPolicy={"enum": ["Max", "Min", "Disabled"]},
)
_KAFKA_TRIGGER = fields(
    {
        "type": {"const": "kafka"},
        "metadata": fields(  # all of them texts, numbers too
            {
                "bootstrapServers": {"type": "string", "pattern": r"^[^:,]+:[0-9]+(,[^:,]+:[0-9]+)*$"},
                "consumerGroup": {"type": "string", "minLength": 1},
                "topic": {"type": "string", "minLength": 1},
                "lagThreshold": {"type": "string", "pattern": "^[1-9][0-9]*$"},
            },
            offsetResetPolicy={"enum": ["latest", "earliest"]},
            activationLagThreshold={"type": "string", "pattern": "^[0-9]+$"},
        ),
    },
    authenticationRef=fields({"name": {"type": "string"}}),
)
_RULE = {
    "oneOf": [
        fields({"record": {"type": "string", "pattern": "^[a-zA-Z_:][a-zA-Z0-9_:]*$"}, "expr": {"type": "string"}}),
        fields(
            {"alert": {"type": "string", "minLength": 1}, "expr": {"type": "string"}},
            **{"for": DURATION, "labels": TEXTS, "annotations": TEXTS},
        ),
    ]
}

SCHEMAS = {
    "ScaledObject": resource(
        "keda.sh/v1alpha1",
        "ScaledObject",
        fields(
            {
                "scaleTargetRef": fields(
                    {"name": {"type": "string"}},
                    kind={"enum": ["StatefulSet", "Deployment"]},
                    apiVersion={"type": "string"},
                ),
                "triggers": items(_KAFKA_TRIGGER),
            },
            minReplicaCount=COUNT,
            maxReplicaCount=COUNT,
            pollingInterval={"type": "integer", "minimum": 1},
            cooldownPeriod=COUNT,
            advanced=fields(
                {}, horizontalPodAutoscalerConfig=fields({}, behavior=fields({}, scaleUp=_SCALING, scaleDown=_SCALING))
            ),
        ),
    ),
    "ServiceMonitor": resource(
        "monitoring.coreos.com/v1",
        "ServiceMonitor",
        fields(
            {
                "selector": fields({"matchLabels": TEXTS}),
                "endpoints": items(
                    fields(
                        {"port": {"type": "string"}}, interval=DURATION, scrapeTimeout=DURATION, path={"type": "string"}
                    )
                ),
            },
            jobLabel={"type": "string"},
        ),
    ),
    "PrometheusRule": resource(
        "monitoring.coreos.com/v1",
        "PrometheusRule",
        fields({"groups": items(fields({"name": {"type": "string"}, "rules": items(_RULE)}, interval=DURATION))}),
    ),
}
