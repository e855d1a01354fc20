"""Checks Kubernetes manifests: every key and every type against the models of Debian's python3-kubernetes, which also
know what is required and which values there are.

usage: validate.py FILE...

Prints one JSON object: `documents` (a list of objects with `file` and `document`) and `errors` (a list of texts). Kinds
that are no part of Kubernetes itself have the fields below that our manifests use, from the projects' references:
ServiceMonitor (https://prometheus-operator.dev/docs/api-reference/api/#monitoring.coreos.com/v1.ServiceMonitor) and
Kustomization (https://kubectl.docs.kubernetes.io/references/kustomize/kustomization/).
"""

import datetime
import json
import sys

import yaml
from kubernetes.client import models
from kubernetes.client.configuration import Configuration

BUILT_IN = {
    ("apps/v1", "Deployment"): "V1Deployment",
    ("batch/v1", "Job"): "V1Job",
    ("v1", "ConfigMap"): "V1ConfigMap",
    ("v1", "Namespace"): "V1Namespace",
    ("v1", "Secret"): "V1Secret",
    ("v1", "Service"): "V1Service",
    ("networking.k8s.io/v1", "NetworkPolicy"): "V1NetworkPolicy",
    ("policy/v1", "PodDisruptionBudget"): "V1PodDisruptionBudget",
}
# A type, a list of one type, or the keys of an object; `!` marks those that are required.
OTHERS = {
    ("monitoring.coreos.com/v1", "ServiceMonitor"): {
        "apiVersion!": str,
        "kind!": str,
        "metadata!": "V1ObjectMeta",
        "spec!": {
            "selector!": "V1LabelSelector",
            "namespaceSelector": {"any": bool, "matchNames": [str]},
            "jobLabel": str,
            "endpoints!": [{"port!": str, "path": str, "interval": str, "scrapeTimeout": str, "scheme": str}],
        },
    },
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"): {
        "apiVersion!": str,
        "kind!": str,
        "namespace": str,
        "resources": [str],
        "images": [{"name!": str, "newName": str, "newTag": str}],
        "configMapGenerator": [{"name!": str, "files": [str], "options": {"disableNameSuffixHash": bool}}],
    },
}
# Values that this version of the models does not check.
VALUES = {
    ("V1ServiceSpec", "type"): ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"],
    ("V1ServiceSpec", "externalTrafficPolicy"): ["Local", "Cluster"],
    ("V1ServicePort", "protocol"): ["TCP", "UDP", "SCTP"],
    ("V1NetworkPolicyPort", "protocol"): ["TCP", "UDP", "SCTP"],
    ("V1ContainerPort", "protocol"): ["TCP", "UDP", "SCTP"],
    ("V1DeploymentStrategy", "type"): ["RollingUpdate", "Recreate"],
    ("V1TopologySpreadConstraint", "whenUnsatisfiable"): ["DoNotSchedule", "ScheduleAnyway"],
    ("V1SeccompProfile", "type"): ["RuntimeDefault", "Unconfined", "Localhost"],
    ("V1PodSpec", "restartPolicy"): ["Always", "OnFailure", "Never"],
    ("V1PodSpec", "dnsPolicy"): ["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"],
    ("V1Container", "imagePullPolicy"): ["Always", "IfNotPresent", "Never"],
}
SIMPLE = {"str": str, "int": int, "bool": bool, "float": (int, float), "datetime": (str, datetime.datetime)}


class Checker:
    """Collects what is wrong in one document."""

    def __init__(self, file):
        self.file = file
        self.errors = []

    def wrong(self, path, text):
        self.errors.append(f"{self.file}: {path}: {text}")

    def simple(self, value, expected, path):
        # A bool is an int for Python.
        if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
            name = getattr(expected, "__name__", "number or date")
            self.wrong(path, f"{value!r} is no {name}")
        return value

    def built_in(self, value, kind, path):
        """The value as the model wants it."""
        if value is None:
            self.wrong(path, "has no value")
            return None
        if kind in SIMPLE:
            return self.simple(value, SIMPLE[kind], path)
        if kind == "object":
            return value
        if kind.startswith("list["):
            if not isinstance(value, list):
                self.wrong(path, "is no list")
                return None
            return [self.built_in(item, kind[5:-1], f"{path}[{at}]") for at, item in enumerate(value)]
        if not isinstance(value, dict):
            self.wrong(path, f"{value!r} is no object")
            return None
        if kind.startswith("dict("):
            of = kind[5:-1].split(", ", 1)[1]
            return {key: self.built_in(item, of, f"{path}.{key}") for key, item in value.items()}
        return self.model(value, getattr(models, kind), path)

    def model(self, value, model, path):
        names = {name: attribute for attribute, name in model.attribute_map.items()}
        given = {}
        for key, item in value.items():
            if key not in names:
                self.wrong(path, f"{model.__name__} has no `{key}`")
                continue
            values = VALUES.get((model.__name__, key), [item])
            if item not in values:
                self.wrong(f"{path}.{key}", f"{item!r} is none of {', '.join(values)}")
            attribute = names[key]
            given[attribute] = self.built_in(item, model.openapi_types[attribute], f"{path}.{key}")
        try:
            return model(**given, local_vars_configuration=Configuration())
        except ValueError as error:
            self.wrong(path, str(error))
            return None

    def other(self, value, schema, path):
        if isinstance(schema, str):
            self.built_in(value, schema, path)
        elif isinstance(schema, list):
            for at, item in enumerate(self.simple(value, list, path)):
                self.other(item, schema[0], f"{path}[{at}]")
        elif isinstance(schema, dict):
            self.simple(value, dict, path)
            known = {key.rstrip("!"): inner for key, inner in schema.items()}
            for key in value:
                if key in known:
                    self.other(value[key], known[key], f"{path}.{key}")
                else:
                    self.wrong(path, f"there is no `{key}`")
            for key in schema:
                if key.endswith("!") and key[:-1] not in value:
                    self.wrong(path, f"`{key[:-1]}` is missing")
        else:
            self.simple(value, schema, path)

    def document(self, document):
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind in BUILT_IN:
            self.built_in(document, BUILT_IN[kind], kind[1])
        elif kind in OTHERS:
            self.other(document, OTHERS[kind], kind[1])
        else:
            self.wrong("kind", f"{kind[0]} {kind[1]} is not known here")


class Loader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which the last one would count."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        twice = {str(key) for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"{', '.join(twice)} twice", node.start_mark)
        return super().construct_mapping(node, deep)


def main(files):
    documents, errors = [], []
    for file in files:
        try:
            with open(file, encoding="utf-8") as opened:
                read = list(yaml.load_all(opened, Loader))
        except yaml.YAMLError as error:
            errors.append(f"{file}: {error}")
            continue
        for document in read:
            checker = Checker(file)
            checker.document(document)
            errors += checker.errors
            documents.append({"file": file, "document": document})
    json.dump({"documents": documents, "errors": errors}, sys.stdout)


main(sys.argv[1:])
