//! A connection to a Redis server: made and introduced by us, so that TLS, addresses and errors are as for every upstream. What is
//! said over it is the library's.

use std::io;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use percent_encoding::percent_decode_str;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, ServerError, Value, cmd,
    parse_redis_value,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use url::Url;

use super::super::Bus;
use crate::source::refusal::Unfit;
use crate::source::upstream::{CONNECT_TIMEOUT, Stream, open_stream};

/// The longest answer to what is said first, in bytes.
const MAX_LINE: usize = 4 << 10;
/// What the other end has done.
const CLOSED: &str = "the server has closed the connection";
const SILENT: &str = "the server does not answer";

/// A connection for commands. It is closed when this is dropped.
pub struct Connection {
    commands: MultiplexedConnection,
    /// Moves the bytes, and ends with the connection.
    driver: JoinHandle<()>,
    ping_interval: Duration,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Does all that it takes to connect, within the time that there is for that.
pub async fn in_time<T>(connecting: impl Future<Output = Result<T>>) -> Result<T> {
    let connected = timeout(CONNECT_TIMEOUT, connecting).await;
    connected.unwrap_or_else(|_| Err(anyhow!(SILENT)))
}

/// A connection on which the server knows who we are and which database is meant.
pub async fn log_in(bus: &Bus) -> Result<Stream> {
    let url = &bus.upstream.url;
    let mut stream = open_stream(url, bus.upstream.tls.as_ref()).await?;
    let greeting = greeting(url)?;
    let packed = greeting.iter().map(Cmd::get_packed_command);
    stream
        .write_all(&packed.collect::<Vec<_>>().concat())
        .await?;
    for said in &greeting {
        let answer = line(&mut stream).await?;
        let answer = parse_redis_value(&answer)
            .map_err(|_| Unfit("what is there does not speak the protocol of Redis".to_owned()))?;
        match answer {
            // Who may not even ping has other rights, perhaps.
            Value::ServerError(error) if error.code() == "NOPERM" && is(said, "PING") => {}
            Value::ServerError(error) => return Err(refusal(&error)),
            _ => {}
        }
    }
    Ok(stream)
}

/// What the library says first on a connection: nothing, as all is said.
pub fn introduced() -> RedisConnectionInfo {
    RedisConnectionInfo::default().set_skip_set_lib_name()
}

/// What is said first: who we are, if the URL says so, and which database is meant; and something that is answered in any case.
fn greeting(url: &Url) -> Result<Vec<Cmd>> {
    let decoded = |text| {
        let decoded = percent_decode_str(text).decode_utf8();
        decoded.map_err(|_| Unfit("user and password in the URL are not UTF-8".to_owned()))
    };
    let mut commands = Vec::new();
    let (user, password) = (decoded(url.username())?, url.password());
    match password {
        Some(password) => {
            let mut auth = cmd("AUTH");
            if !user.is_empty() {
                auth.arg(&*user);
            }
            auth.arg(&*decoded(password)?);
            commands.push(auth);
        }
        None if !user.is_empty() => bail!(Unfit(
            "the URL names a user and no password: redis://USER:PASSWORD@HOST is expected, or redis://:PASSWORD@HOST without a user".to_owned()
        )),
        None => {}
    }
    let database = database(url);
    if database != 0 {
        let mut select = cmd("SELECT");
        select.arg(database);
        commands.push(select);
    }
    commands.push(cmd("PING"));
    Ok(commands)
}

/// The number of the database in a URL that has been checked.
pub fn database(url: &Url) -> u16 {
    url.path().trim_matches('/').parse().unwrap_or(0)
}

fn is(command: &Cmd, name: &str) -> bool {
    let first = command.args_iter().next();
    matches!(first, Some(redis::Arg::Simple(first)) if first == name.as_bytes())
}

/// The next line, and no byte behind it: that is for the library.
async fn line(stream: &mut Stream) -> Result<Vec<u8>> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") && line.len() < MAX_LINE {
        let byte = stream.read_u8().await.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                anyhow!("{CLOSED} before it has answered (if it expects TLS, say rediss://)")
            }
            _ => error.into(),
        })?;
        line.push(byte);
    }
    Ok(line)
}

/// What a server says that does not do what it is told. What waiting does not help is said so that it can be put right.
pub fn refusal(error: &ServerError) -> anyhow::Error {
    let (code, said) = (error.code(), error.details().unwrap_or_default());
    let lower = said.to_ascii_lowercase();
    let unfit = match code {
        "NOAUTH" => "the server wants a password: put it into the URL, as redis://USER:PASSWORD@HOST or redis://:PASSWORD@HOST".to_owned(),
        "WRONGPASS" => "the server does not take this user and password".to_owned(),
        "ERR" if lower.contains("invalid password") => "the server does not take this password".to_owned(),
        "ERR" if lower.contains("without any password configured") || lower.contains("no password is set") => {
            "the server has no password: leave it out of the URL".to_owned()
        }
        "ERR" if lower.contains("arguments for 'auth'") => {
            "the server is too old to know users: name the password alone, as redis://:PASSWORD@HOST".to_owned()
        }
        "ERR" if lower.contains("db index") => {
            "the server has no database of this number: see the path of the URL".to_owned()
        }
        "ERR" if lower.contains("unknown command") => {
            format!("the server does not know what it is told (Redis 5 or later is needed): {said}")
        }
        "ERR" if lower.contains("exhausted the last possible id") => {
            "the key takes no more entries: its last id is the largest there is".to_owned()
        }
        "NOPERM" => format!("the server does not let this user do it: {said}"),
        "WRONGTYPE" => "the key is there, and is no stream: name another one, or delete it".to_owned(),
        "DENIED" => "the server is in protected mode: it needs a password, or `protected-mode no`, before others than itself may connect".to_owned(),
        "MOVED" | "ASK" => format!("the key is at another node of the cluster: name that one (slot and address: {said})"),
        _ => return anyhow!("the server says: {code} {said}"),
    };
    Unfit(unfit).into()
}

/// What the library says of a failure.
pub fn failure(error: RedisError) -> anyhow::Error {
    if error.is_connection_dropped() {
        return anyhow!(CLOSED);
    }
    // Of several commands that are done together, the first that is not done.
    let first = error.clone().into_server_errors();
    match first.as_ref().and_then(|errors| errors.first()) {
        Some((_, error)) => refusal(error),
        None => anyhow::Error::new(error),
    }
}

/// What a command is answered, unless it is refused.
pub fn good(answer: Value) -> Result<Value> {
    match answer {
        Value::ServerError(error) => Err(refusal(&error)),
        answer => Ok(answer),
    }
}

impl Connection {
    /// Connects to `bus`.
    pub async fn open(bus: &Bus) -> Result<Self> {
        let stream = log_in(bus).await?;
        // How long an answer may take, is for us to say.
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let connecting =
            MultiplexedConnection::new_with_config(&introduced(), stream, config).await;
        let (commands, driver) = connecting.map_err(failure)?;
        Ok(Self {
            commands,
            driver: tokio::spawn(driver),
            ping_interval: bus.upstream.ping_interval,
        })
    }

    /// Waits for an answer as long as a server may be silent.
    async fn in_time<T>(
        ping_interval: Duration,
        answer: impl Future<Output = Result<T, RedisError>>,
    ) -> Result<T> {
        match timeout(ping_interval * 2, answer).await {
            Ok(answer) => answer.map_err(failure),
            Err(_) => bail!(SILENT),
        }
    }

    /// What a command is answered; that may be an error of the server's.
    pub async fn ask(&mut self, command: &Cmd) -> Result<Value> {
        Self::in_time(
            self.ping_interval,
            self.commands.send_packed_command(command),
        )
        .await
    }

    /// What commands in a row are answered, each.
    pub async fn ask_all(&mut self, commands: &Pipeline) -> Result<Vec<Value>> {
        let count = commands.len();
        let answers = self.commands.send_packed_commands(commands, 0, count);
        Self::in_time(self.ping_interval, answers).await
    }

    /// The same for commands of which the server does all or none, with nothing between them. An error if it does none.
    pub async fn transact(&mut self, commands: &mut Pipeline) -> Result<Vec<Value>> {
        commands.atomic();
        // MULTI, and what each command is answered before EXEC.
        let before = commands.len() + 1;
        let answers = self.commands.send_packed_commands(commands, before, 1);
        let answers = Self::in_time(self.ping_interval, answers).await?;
        match answers.into_iter().next().map(good).transpose()? {
            Some(Value::Array(answers)) => Ok(answers),
            other => bail!("the answer to EXEC is none: {other:?}"),
        }
    }

    /// Waits until the connection is lost: it is closed, or the server is silent for two intervals. May be given up at any time.
    pub async fn lost(&mut self) -> anyhow::Error {
        let ping_interval = self.ping_interval;
        let alive = async {
            loop {
                sleep(ping_interval).await;
                // Whatever it says, it is there.
                let ping = cmd("PING");
                let answer = self.commands.send_packed_command(&ping);
                if timeout(ping_interval, answer).await.is_err() {
                    return;
                }
            }
        };
        if self.driver.is_finished() {
            return anyhow!(CLOSED);
        }
        tokio::select! {
            _ = &mut self.driver => anyhow!(CLOSED),
            () = alive => anyhow!(SILENT),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::refusal::{Verdict, verdict};

    fn packed(url: &str) -> Result<String> {
        let url = Url::parse(url).expect("a URL");
        let packed = greeting(&url)?.into_iter().map(|command| {
            let words = command.args_iter().map(|word| match word {
                redis::Arg::Simple(word) => String::from_utf8_lossy(word).into_owned(),
                _ => unreachable!("no cursor is meant"),
            });
            words.collect::<Vec<_>>().join(" ")
        });
        Ok(packed.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn the_url_says_who_and_where() {
        for (url, expected) in [
            ("redis://h?channel=c", "PING"),
            ("redis://h/0?channel=c", "PING"),
            ("rediss+stream://h/5?stream=s", "SELECT 5; PING"),
            ("redis://:p%40ss@h/", "AUTH p@ss; PING"),
            ("redis://me:p:w@h/12", "AUTH me p:w; SELECT 12; PING"),
        ] {
            assert_eq!(packed(url).expect("it is whole"), expected, "{url}");
        }
        let error = packed("redis://me@h/").expect_err("no password");
        assert!(error.to_string().contains("no password"));
    }

    #[test]
    fn what_waiting_does_not_help_is_told_from_what_it_does() {
        let refusal = |line: &str| {
            let answer = parse_redis_value(format!("-{line}\r\n").as_bytes());
            match answer.expect("it is an error of the protocol") {
                Value::ServerError(error) => refusal(&error),
                other => panic!("{other:?}"),
            }
        };
        for line in [
            "NOAUTH Authentication required.",
            "WRONGPASS invalid username-password pair or user is disabled.",
            "NOPERM this user has no permissions to run the 'xadd' command",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "ERR DB index is out of range",
            "ERR unknown command 'XADD', with args beginning with: ",
        ] {
            let error = refusal(line);
            let expected = Verdict::Refused { status: 502 };
            assert_eq!(verdict(&error), expected, "{line}: {error}");
            assert!(!error.to_string().contains('\n'));
        }
        for line in [
            "LOADING Redis is loading the dataset in memory",
            "READONLY You can't write against a read only replica.",
            "OOM command not allowed when used memory > 'maxmemory'.",
            "ERR max number of clients reached",
        ] {
            assert_eq!(verdict(&refusal(line)), Verdict::Away, "{line}");
        }
    }
}
