// Answers who speaks to it: docs/scenarios/chat.md. Needs Node 22, or ws; node chat-bot.js ws://localhost:8080/rooms/lobby
const WebSocket = globalThis.WebSocket ?? require('ws');

function answer(room) {
  const socket = new WebSocket(room);
  socket.onmessage = ({ data }) => {
    let said;
    try { said = JSON.parse(data); } catch { return; } // not everybody speaks JSON
    if (said?.from === 'bot' || typeof said?.text !== 'string' || !said.text.startsWith('bot, ')) return;
    socket.send(JSON.stringify({ from: 'bot', text: `${said.from}, you said: ${said.text.slice(5)}` }));
  };
  socket.onerror = () => {}; // it closes then
  socket.onclose = () => setTimeout(answer, 1000, room);
}

answer(process.argv[2]);
