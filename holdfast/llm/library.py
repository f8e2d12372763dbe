"""litellm, imported once and kept quiet. It takes 2 to 3 s and 150 MB: import this late, where models are called.

No network at import, no telemetry, no text of a conversation in its logs.
"""

import logging
import os

# Without it, the import fetches a price list from the network.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
# A model may well say the same a hundred times: a table of zeros, a line of dashes. LiteLLM would end the stream.
os.environ.setdefault("REPEATED_STREAMING_CHUNK_LIMIT", "100000")

import litellm
import litellm.main

#: Whose clients, as tests show, tell connecting from reading, though LiteLLM's own list leaves them out.
_TELL_CONNECTING = frozenset({"anthropic", "ollama", "ollama_chat"})

_told_before = litellm.main.supports_httpx_timeout
litellm.main.supports_httpx_timeout = lambda provider: provider in _TELL_CONNECTING or _told_before(provider)
litellm.telemetry = False
# An embedding would be asked for three times over, whatever the Router is told.
litellm.DEFAULT_MAX_RETRIES = 0
litellm.suppress_debug_info = True
litellm.turn_off_message_logging = True
# It logs the texts of providers' errors, which may quote a prompt or part of a key.
for _name in ("LiteLLM", "LiteLLM Router"):
    logging.getLogger(_name).setLevel(logging.CRITICAL)

__all__ = ["litellm"]
