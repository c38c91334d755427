curl --location 'http://0.0.0.0:4000/chat/completions' \
    --header 'Authorization: Bearer sk-1234' \
    --data ' {
    "model": "gpt-3.5-turbo",
    "messages": [{"role": "user", "content": "good morning"}],
    "user": "app-7",
    "temperature": 0.2
    }'
