//! Whether the other side is there, as the log and the list of streams tell it.

use std::fmt::Display;
use std::sync::Arc;

use tracing::{debug, info, warn};

use super::Destination;
use super::refusal::{Verdict, verdict};
use crate::event::Origin;
use crate::spans::Connecting;
use crate::stream::via::Via;

/// What has a name that may be shown to anyone: its [`Display`].
pub trait Named: Display + Send + Sync {
    /// Why something has failed, in one line. Servers repeat what they are told, so what only they are told is left out.
    fn reason(&self, error: &anyhow::Error) -> String;
}

/// Tells the log when an upstream is lost and when it is back, not each attempt; and the list of streams whether it is there.
pub struct Presence {
    named: Arc<dyn Named>,
    is_lost: bool,
    last_reason: String,
    was_connected: bool,
    /// What is to know, and the number of the source there.
    via: Option<(Arc<Via>, usize)>,
    on_demand: bool,
    is_peer: bool,
    /// Whether it has turned out to be this stream.
    is_itself: bool,
    /// How it is being reached, for traces.
    connecting: Connecting,
}

impl Presence {
    /// Of what brings events `to` a stream. There has been no connection yet.
    pub fn of<N: Named + 'static>(named: &Arc<N>, to: &Destination) -> Self {
        Self {
            via: Some((to.via.clone(), to.number)),
            on_demand: to.on_demand,
            is_peer: to.inflow.is_peer(),
            ..Self::downstream(named)
        }
    }

    /// An attempt to connect begins.
    pub fn tries(&mut self) {
        let (role, again) = (self.role(), self.was_connected);
        self.connecting.attempt((role, &*self.named), again);
    }

    /// Of what events are brought to.
    pub fn downstream<N: Named + 'static>(named: &Arc<N>) -> Self {
        Self {
            named: named.clone(),
            is_lost: false,
            last_reason: String::new(),
            was_connected: false,
            via: None,
            on_demand: false,
            is_peer: false,
            is_itself: false,
            connecting: Connecting::default(),
        }
    }

    /// What the log calls it.
    fn role(&self) -> &'static str {
        match self.via {
            Some(_) if self.is_peer => "peer",
            Some(_) => "upstream",
            None => "downstream",
        }
    }

    /// A handshake has shown how events come, and from which instance, if it is a wsevent.
    pub fn leads_to(&self, transport: &'static str, instance: Option<Origin>) {
        self.connecting.leads_to(transport, instance);
        if let Some((via, number)) = &self.via {
            via.leads_to(*number, transport, instance);
        }
    }

    /// A connection has been made.
    pub fn connected(&mut self) {
        self.is_lost = false;
        self.is_itself = false;
        self.was_connected = true;
        self.connecting.connected();
        if let Some((via, number)) = &self.via {
            via.connected(*number);
        }
        let url = self.named.to_string();
        info!(url, "{} connected", self.role());
    }

    /// A connection has been made, and leads back to where it has come from.
    pub fn is_itself(&mut self) {
        self.is_lost = false;
        self.was_connected = false;
        self.connecting.connected();
        if let Some((via, number)) = &self.via {
            via.is_itself(*number);
        }
        if !std::mem::replace(&mut self.is_itself, true) {
            let url = self.named.to_string();
            info!(url, "this peer is the hop itself, and left out");
        }
    }

    /// An attempt to connect has failed, or a connection has ended. What is wrong, in one line.
    pub fn lost(&mut self, error: &anyhow::Error) -> String {
        let reason = self.named.reason(error);
        let (role, again) = (self.role(), self.was_connected);
        self.connecting.lost((role, &*self.named), again, &reason);
        self.is_itself = false;
        // Another reason is news: there may be something to do about it now.
        let is_known = std::mem::replace(&mut self.last_reason, reason.clone()) == reason;
        let refused = match verdict(error) {
            Verdict::Refused { status } => Some(status),
            Verdict::Away => None,
        };
        if let Some((via, number)) = &self.via {
            via.away(*number, &reason);
            via.lost(*number, refused.map(|status| (status, reason.clone())));
        }
        let (url, role) = (self.named.to_string(), self.role());
        if std::mem::replace(&mut self.is_lost, true) {
            match is_known {
                true => debug!(url, %reason, refused, "{role} still away"),
                false => info!(url, %reason, refused, "{role} still away"),
            }
        } else if self.was_connected {
            warn!(url, %reason, refused, "{role} lost");
        } else if refused.is_some() && self.on_demand {
            warn!(url, %reason, refused, "{role} refuses");
        } else {
            warn!(url, %reason, refused, "cannot reach {role}, trying again");
        }
        reason
    }

    /// It has said that there is no more to come, by `what`: there is no such stream any more.
    pub fn ended(&self, what: &str) {
        self.is_over(what, Some(204));
    }

    /// All that there was to come from it has come: a stream of that stays as long as any.
    pub fn has_given_all(&self, what: &str) {
        self.is_over(what, None);
    }

    fn is_over(&self, what: &str, refused: Option<u16>) {
        let role = self.role();
        if let Some((via, number)) = &self.via {
            let reason = format!("{role} has ended: {what}");
            via.away(*number, &reason);
            via.lost(*number, refused.map(|status| (status, reason)));
        }
        info!(url = self.named.to_string(), "{role} has ended: {what}");
    }
}
