"""What both sides of Temporal must spell alike."""

WORKFLOW = "MessageWorkflow"
DELIVERY_WORKFLOW = "DeliveryWorkflow"

#: Signals: `decided` carries a confirmation's id, `turn_freed` nothing. They only wake; what was decided is stored.
DECIDED = "decided"
TURN_FREED = "turn_freed"

TENANT_ID = "TenantId"
AGENT_NAME = "AgentName"
RUN_STATE = "RunState"
CONVERSATION_ID = "ConversationId"
PENDING_TOOL = "PendingTool"

#: All of type Keyword. They stay readable where payloads are encrypted: ids and states only, no personal data.
SEARCH_ATTRIBUTES = (TENANT_ID, AGENT_NAME, RUN_STATE, CONVERSATION_ID, PENDING_TOOL)
