curl --location 'http://0.0.0.0:4000/chat/completions' \
    --header 'Content-Type: application/json' \
    --data '{
    "model": "claude-sonnet-4-20250514",
    "messages": [{"role": "user", "content": "which model are you"}],
    "metadata": {"generation_name": "a-generation", "trace_id": "trace-22", "tags": ["job:1"]}
}'
