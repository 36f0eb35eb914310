"""What the schemas do not say of manifests: that the names in them lead somewhere.

    references.py MANIFESTS FOLDER

prints what leads nowhere, and exits with 1 then. Writes the files of all config maps into the folder.
"""

import sys
from pathlib import Path

import yaml


def pods(manifest):
    """The template of a manifest's pods, if it has one."""
    spec = manifest.get("spec", {})
    template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
    return [template] if template else []


def wrong(manifests):
    there = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    templates = [(each["metadata"]["name"], pod) for each in manifests for pod in pods(each)]
    for name, template in templates:
        pod = template["spec"]
        containers = [*pod.get("initContainers", []), *pod["containers"]]
        claims = next(each for each in manifests if each["metadata"]["name"] == name and pods(each))
        volumes = {each["name"]: each for each in pod.get("volumes", [])}
        volumes |= {each["metadata"]["name"]: each for each in claims["spec"].get("volumeClaimTemplates", [])}
        maps = [each["configMap"]["name"] for each in volumes.values() if "configMap" in each]
        maps += [each["configMapRef"]["name"] for c in containers for each in c.get("envFrom", []) if "configMapRef" in each]
        named = [("ConfigMap", each) for each in maps]
        named += [("ServiceAccount", pod["serviceAccountName"])] if "serviceAccountName" in pod else []
        yield from (f"{name}: there is no {kind} {wanted}" for kind, wanted in named if (kind, wanted) not in there)
        mounted = {each["name"] for container in containers for each in container.get("volumeMounts", [])}
        yield from (f"{name}: no volume {each}" for each in mounted - volumes.keys())
        yield from (f"{name}: the volume {each} is not mounted" for each in volumes.keys() - mounted)
        yield from (f"{name}: the image {c['image']} has no registry" for c in containers if "/" not in c["image"])
    for each in manifests:
        if each["kind"] not in ("Service", "PodDisruptionBudget"):
            continue
        selector = each["spec"]["selector"]
        labels = selector.get("matchLabels", selector).items()
        found = [pod for _, pod in templates if labels <= pod["metadata"]["labels"].items()]
        title = f"{each['kind']} {each['metadata']['name']}"
        if len(found) != 1:
            yield f"{title}: its selector finds {len(found)} sorts of pods, and should find one"
            continue
        ports = {port["name"] for container in found[0]["spec"]["containers"] for port in container.get("ports", [])}
        targets = {port["targetPort"] for port in each["spec"].get("ports", [])}
        yield from (f"{title}: the pods have no port {port}" for port in targets - ports)


def main():
    manifests = list(yaml.safe_load_all(Path(sys.argv[1]).read_text(encoding="utf-8")))
    for each in manifests:
        if each["kind"] == "ConfigMap":
            for name, text in each["data"].items():
                (Path(sys.argv[2]) / name).write_text(text, encoding="utf-8")
    problems = list(wrong(manifests))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
