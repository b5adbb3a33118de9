//! What has come of a subject and has not been read yet. The library bounds that in messages, and drops what is beyond it without saying
//! how many; here it is bounded in bytes, and what goes is counted where it goes.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::{Message, Subscriber};
use futures_util::StreamExt;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// At most so many bytes wait, as in other clients of NATS.
const MOST_BYTES: usize = 64 << 20;
/// What a message costs beside what came over the wire.
const OVERHEAD: usize = 2 * size_of::<Message>();

/// What waits.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Message),
    /// So many there was no room for.
    Lost(u64),
}

/// Takes from a subscription as fast as it can, so that the library has nothing to drop.
pub struct Queue {
    shared: Arc<Shared>,
    task: AbortHandle,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    arrived: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// Whether there is no more to come.
    is_over: bool,
}

impl State {
    fn push(&mut self, message: Message, most: usize) {
        let cost = cost(&message);
        if self.bytes + cost <= most {
            self.bytes += cost;
            self.items.push_back(Item::Message(message));
        } else if let Some(Item::Lost(count)) = self.items.back_mut() {
            *count += 1;
        } else {
            self.items.push_back(Item::Lost(1));
        }
    }

    fn pop(&mut self) -> Option<Item> {
        let item = self.items.pop_front();
        if let Some(Item::Message(message)) = &item {
            self.bytes -= cost(message);
        }
        item
    }
}

fn cost(message: &Message) -> usize {
    message.length + OVERHEAD
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    /// Begins to take.
    pub fn of(mut messages: Subscriber) -> Self {
        let shared = Arc::new(Shared::default());
        let filled = shared.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = messages.next().await {
                filled.lock().push(message, MOST_BYTES);
                filled.arrived.notify_one();
            }
            filled.lock().is_over = true;
            filled.arrived.notify_one();
        });
        Self {
            shared,
            task: task.abort_handle(),
        }
    }

    /// Waits until there is something, and takes so many at most; nothing once there is no more to come. May be given up at any time.
    pub async fn take(&self, most: usize) -> Vec<Item> {
        loop {
            {
                let mut state = self.shared.lock();
                let items = std::iter::from_fn(|| state.pop()).take(most);
                let items: Vec<_> = items.collect();
                if !items.is_empty() || state.is_over {
                    return items;
                }
            }
            self.shared.arrived.notified().await;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: usize) -> Message {
        Message {
            subject: "s".into(),
            reply: None,
            payload: bytes::Bytes::new(),
            headers: None,
            status: None,
            description: None,
            length,
        }
    }

    fn outline(state: &mut State) -> Vec<String> {
        let items = std::iter::from_fn(|| state.pop());
        let items = items.map(|item| match item {
            Item::Message(message) => message.length.to_string(),
            Item::Lost(count) => format!("lost {count}"),
        });
        items.collect()
    }

    #[test]
    fn what_there_is_no_room_for_is_counted_where_it_is_missing() {
        let mut state = State::default();
        let most = 2 * OVERHEAD + 10;
        for length in [4, 6, 1, 1] {
            state.push(message(length), most);
        }
        assert!(matches!(state.pop(), Some(Item::Message(_))));
        for length in [3, 9] {
            state.push(message(length), most);
        }
        assert_eq!(outline(&mut state), ["6", "lost 2", "3", "lost 1"]);
        assert_eq!(state.bytes, 0);
    }
}
