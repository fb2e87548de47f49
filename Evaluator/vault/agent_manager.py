"""The agentManager tools: stored agents, and stand-ins for the models and image makers outside.

What asks the world outside is recorded in the vault's `requests` and answered by a fixed text.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from Evaluator.vault.content_manager import found_by
from Evaluator.vault.paths import file_path
from Evaluator.vault.replies import Caller, Data, Handler, ToolError
from Evaluator.vault.state import Record, Vault

MODELS = {
    "anthropic": ("claude-sonnet-5", "claude-haiku-4-5"),
    "openai": ("gpt-5.1",),
    "google": ("gemini-3-pro",),
    "ollama": ("llama3.2",),
}
"""The models that the stand-in has, by provider; the first of the first is the default."""
IMAGE_MODEL = "imagen-4"


# -- stored agents ------------------------------------------------------------------------------------------------


def list_agents(vault: Vault, arguments: Data, caller: Caller) -> Data:
    enabled_only = arguments.get("enabledOnly", False)
    shown = [_brief(one) for one in vault.agents.values() if one["isEnabled"] or not enabled_only]
    enabled = sum(one["isEnabled"] for one in vault.agents.values())
    total = len(vault.agents)
    message = f"Found {len(shown)} prompts"
    return {"prompts": shown, "totalCount": total, "enabledCount": enabled, "message": message}


def _brief(agent: Record) -> dict[str, Any]:
    return {key: agent[key] for key in ("id", "name", "description", "isEnabled")}


def get_agent(vault: Vault, arguments: Data, caller: Caller) -> Data:
    key, name = arguments.get("id"), arguments.get("name")
    if not key and not name:
        raise ToolError("Either id or name must be provided")
    agent = vault.agents.get(key) if key else _by_name(vault, str(name))
    if not agent:
        raise ToolError(f"Agent with {f'ID {key!r}' if key else f'name {name!r}'} not found".replace("'", '"'))
    return {**agent, "message": f'Found prompt "{agent["name"]}"'}


def create_agent(vault: Vault, arguments: Data, caller: Caller) -> Data:
    for key, title in (("name", "Name"), ("description", "Description"), ("prompt", "Agent prompt text")):
        if not arguments[key].strip():
            raise ToolError(f"{title} is required")
    if _by_name(vault, arguments["name"]):
        raise ToolError(f'Failed to create agent: Error: A prompt with the name "{arguments["name"]}" already exists')
    fields = {key: arguments[key] for key in ("name", "description", "prompt")}
    agent = {"id": vault.new_id("prompt"), **fields, "isEnabled": arguments.get("isEnabled", True)}
    vault.agents[agent["id"]] = agent
    return agent


def update_agent(vault: Vault, arguments: Data, caller: Caller) -> Data:
    agent = _by_id(vault, arguments["id"], "Failed to update prompt: Error: ")
    changes = {key: arguments[key] for key in ("name", "description", "prompt", "isEnabled") if key in arguments}
    if not changes:
        raise ToolError("At least one field must be provided for update")
    namesake = _by_name(vault, changes.get("name", ""))
    if namesake and namesake["id"] != agent["id"]:
        raise ToolError(f'Failed to update prompt: Error: A prompt with the name "{changes["name"]}" already exists')
    vault.agents[agent["id"]] = {**agent, **changes}
    return vault.agents[agent["id"]]


def delete_agent(vault: Vault, arguments: Data, caller: Caller) -> Data:
    agent = _by_id(vault, arguments["id"])
    del vault.agents[agent["id"]]
    return {"deleted": True, "id": agent["id"]}


def toggle_agent(vault: Vault, arguments: Data, caller: Caller) -> Data:
    agent = _by_id(vault, arguments["id"], "Failed to toggle prompt: Error: ")
    vault.agents[agent["id"]] = {**agent, "isEnabled": not agent["isEnabled"]}
    return vault.agents[agent["id"]]


def _by_id(vault: Vault, key: str, failure: str = "") -> Record:
    if key not in vault.agents:
        raise ToolError(f'{failure}Prompt with ID "{key}" not found')
    return vault.agents[key]


def _by_name(vault: Vault, name: str) -> Record | None:
    return next((agent for agent in vault.agents.values() if agent["name"] == name), None)


# -- the world outside --------------------------------------------------------------------------------------------


def list_models(vault: Vault, arguments: Data, caller: Caller) -> Data:
    capabilities = dict.fromkeys(("supportsJSON", "supportsImages", "supportsFunctions", "supportsStreaming"), True)
    pricing = {"inputPerMillion": 1, "outputPerMillion": 5, "currency": "USD", "lastUpdated": "2026-01-01"}
    default = {"provider": next(iter(MODELS)), "model": next(iter(MODELS.values()))[0]}
    models = [
        {
            "provider": provider,
            "model": model,
            "displayName": model,
            "isDefault": default == {"provider": provider, "model": model},
            "capabilities": {"contextWindow": 200_000, **capabilities},
            "pricing": pricing,
        }
        for provider, names in MODELS.items()
        for model in names
    ]
    providers = [
        {"id": provider, "name": provider, "description": provider, "isEnabled": True, "modelCount": len(names)}
        for provider, names in MODELS.items()
    ]
    statistics = {
        "totalModels": len(models),
        "providerCount": len(providers),
        **dict.fromkeys(("averageContextWindow", "maxContextWindow"), 200_000),
        **dict.fromkeys(("minCostPerMillion", "maxCostPerMillion"), 1),
    }
    return {"models": models, "defaultModel": default, "statistics": statistics, "availableProviders": providers}


def execute_prompt(vault: Vault, arguments: Data, caller: Caller) -> Data:
    answer = _ask(vault, "text", arguments, arguments.get("filepaths", ()))
    shown = answer["response"] if arguments.get("returnContent", True) else "[Content not returned]"
    return {**answer, "response": shown}


def batch_execute_prompt(vault: Vault, arguments: Data, caller: Caller) -> Data:
    """Steps by their sequence number; one that fails does not stop the others."""
    steps = sorted(arguments["prompts"], key=lambda step: step.get("sequence", 0))
    results = [_batch_step(vault, step) for step in steps]
    if not arguments.get("mergeResponses"):
        return {"results": results}
    good = [one for one in results if one["success"]]
    merged = {
        "totalPrompts": len(results),
        "successfulPrompts": len(good),
        "mergedContent": "\n\n".join(one.get("response", "") for one in good),
        "providersUsed": sorted({one["provider"] for one in good}),
    }
    return {"results": results, "mergedResponse": merged}


def _batch_step(vault: Vault, step: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"type": step["type"], "prompt": step["prompt"], **({"id": step["id"]} if "id" in step else {})}
    try:
        if step["type"] == "image":
            return {**shown, "success": True, **_draw(vault, step)}
        answer = _ask(vault, "text", step, step.get("contextFiles", ()))
    except ToolError as error:
        return {**shown, "success": False, "error": str(error)}
    return {**shown, "success": True, **answer, "agent": answer["agentUsed"]}


def generate_image(vault: Vault, arguments: Data, caller: Caller) -> Data:
    return _draw(vault, arguments)


def _ask(vault: Vault, kind: str, wanted: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Record a request to a model, answer it with a fixed text, and write that where `action` says."""
    agent = _agent_named(vault, wanted["agent"]) if wanted.get("agent") else None
    provider, model = _model(wanted.get("provider"), wanted.get("model"))
    paths = [file_path(path, markdown=True) for path in files]
    missing = [path for path in paths if path not in vault.notes]
    if missing:
        raise ToolError(f"File not found: {missing[0]}")
    asked = {
        "kind": kind,
        "prompt": wanted["prompt"],
        "provider": provider,
        "model": model,
        "agent": agent["name"] if agent else None,
        "files": paths,
        "temperature": wanted.get("temperature"),
        "maxTokens": wanted.get("maxTokens"),
        "webSearch": wanted.get("webSearch", False),
    }
    vault.requests[len(vault.requests)] = asked
    response = f"(answer of {model} to: {wanted['prompt'][:200]})"
    answer = {"response": response, "model": model, "provider": provider, "agentUsed": asked["agent"] or "default"}
    if paths:
        answer["filesIncluded"] = paths
    if wanted.get("action"):
        answer["actionPerformed"] = _act(vault, wanted["action"], response)
    return answer


def _agent_named(vault: Vault, name: str) -> Record:
    agent = vault.agents.get(name) or _by_name(vault, name)
    if not agent:
        raise ToolError(f"Custom prompt agent '{name}' not found")
    if not agent["isEnabled"]:
        raise ToolError(f"Custom prompt agent '{name}' is disabled")
    return agent


def _model(provider: str | None, model: str | None) -> tuple[str, str]:
    """Fill in what is not given; a provider or model that is not there is an error."""
    if provider is None:
        provider = next((name for name, models in MODELS.items() if model in models), next(iter(MODELS)))
    if provider not in MODELS:
        raise ToolError(f"Provider '{provider}' is not available")
    if model is None:
        model = MODELS[provider][0]
    if model not in MODELS[provider]:
        raise ToolError(f"Model '{model}' is not available from {provider}")
    return provider, model


def _act(vault: Vault, action: Mapping[str, Any], response: str) -> dict[str, Any]:
    """Write an answer into the vault; a failure is told in the reply, which stays a success."""
    done: dict[str, Any] = {"type": action["type"], "targetPath": action["targetPath"]}
    try:
        path = file_path(action["targetPath"], markdown=True)
        old = vault.notes[path].text if path in vault.notes else None
        if action["type"] == "create":
            if old is not None or vault.has(path) or vault.is_under_a_note(path):
                raise ToolError(f"File already exists: {path}")
            vault.write(path, response)
        elif old is None:
            raise ToolError(f"File not found: {path}")
        else:
            vault.write(path, _combined(action, old, response))
    except ToolError as error:
        return {**done, "success": False, "error": str(error)}
    return {**done, "success": True}


def _combined(action: Mapping[str, Any], old: str, response: str) -> str:
    find = action.get("findText") or ""
    if action["type"] == "findReplace" and find:
        pattern, flags = found_by(find, action)
        return re.sub(pattern, lambda _: response, old, count=0 if action.get("replaceAll") else 1, flags=flags)
    return {"append": old + response, "prepend": response + old}.get(action["type"], response)


def _draw(vault: Vault, wanted: Mapping[str, Any]) -> dict[str, Any]:
    path = file_path(wanted["savePath"])
    if vault.has_folder(path) or vault.is_under_a_note(path):
        raise ToolError(f"Parameter validation failed: cannot save to {path}")
    model = wanted.get("model", IMAGE_MODEL)
    ratio = wanted.get("aspectRatio", "1:1")
    asked = {"kind": "image", "prompt": wanted["prompt"], "provider": wanted["provider"], "model": model}
    extension = path.rpartition(".")[2].lower()
    extension = "jpeg" if extension == "jpg" else extension
    more = {
        "numberOfImages": wanted.get("numberOfImages", 1),
        "sampleImageSize": wanted.get("sampleImageSize", "1K"),
        "format": wanted.get("format", extension),
    }
    vault.requests[len(vault.requests)] = {**asked, "aspectRatio": ratio, **more}
    vault.write(path, f"(image: {wanted['prompt']})")
    width, height = (int(part) for part in ratio.split(":"))
    return {
        "imagePath": path,
        "prompt": wanted["prompt"],
        "model": model,
        "provider": wanted["provider"],
        "dimensions": {"width": 1024, "height": 1024 * height // width},
        "fileSize": 1,
        "format": more["format"],
    }


TOOLS: dict[str, Handler] = {
    "agentManager_listAgents": list_agents,
    "agentManager_getAgent": get_agent,
    "agentManager_createAgent": create_agent,
    "agentManager_updateAgent": update_agent,
    "agentManager_deleteAgent": delete_agent,
    "agentManager_toggleAgent": toggle_agent,
    "agentManager_listModels": list_models,
    "agentManager_executePrompt": execute_prompt,
    "agentManager_batchExecutePrompt": batch_execute_prompt,
    "agentManager_generateImage": generate_image,
}
ANSWERS = {
    "agentManager_listAgents": ("prompts[].id",),
    "agentManager_getAgent": ("id",),
    "agentManager_listModels": ("models[].model",),
}
