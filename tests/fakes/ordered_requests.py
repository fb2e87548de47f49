"""What a model that does as it is told writes to orders for requests: names all that is to be named, and chats."""

import hashlib
import json
import re

from Tools.prompts.cells import ORDER_HEAD


def written_to(message: str, salt: int = 0) -> str:
    """The answer to one order, or the JSON answer to several; with another `salt` in other words."""
    orders = message.split(ORDER_HEAD)[1:]
    requests = [_request(order, salt) for order in orders]
    return requests[0] if len(requests) == 1 else json.dumps({"requests": requests})


def _request(order: str, salt: int) -> str:
    names = re.findall("^- (.*)", order.partition("names exactly as written here:")[2], re.MULTILINE)
    words = hashlib.sha256(f"{salt}:{order}".encode()).hexdigest()
    chatter = " ".join(words[at : at + 4] for at in range(0, 40, 4))
    return f"Please look into {chatter} and see to this: {', '.join(names)}"
