//! The replay cache that replicas share, against a server that knows one command of Redis as this crate sends it. A real one is part of
//! the end-to-end tests.

use std::{collections::HashSet, sync::Arc};

use countersign_verify::{
    Authorizer,
    proof::{Authenticator, RedisReplayCache, Refusal},
    tls::FixedBundles,
    wimse::Audience,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

use crate::{
    fixtures::{Domain, bundle_set},
    sender::{ORIGIN, Sent},
};

#[derive(Clone, Default)]
struct Redis {
    keys: Arc<Mutex<HashSet<String>>>,
    /// The commands but for those of the connection itself.
    commands: Arc<Mutex<Vec<Vec<String>>>>,
}

impl Redis {
    async fn start() -> (Self, String, JoinHandle<()>) {
        let redis = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let served = redis.clone();
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((connection, _)) = listener.accept().await {
                connections.spawn(served.clone().serve(connection));
            }
        });
        (redis, url, task)
    }

    async fn serve(self, connection: TcpStream) {
        let mut connection = BufReader::new(connection);
        while let Some(command) = read(&mut connection).await {
            let answer = match command.first().map(String::as_str) {
                Some("SET") => {
                    let is_new = self.keys.lock().insert(command[1].clone());
                    self.commands.lock().push(command);
                    if is_new { "+OK\r\n" } else { "$-1\r\n" }
                }
                _ => "+OK\r\n",
            };
            connection.get_mut().write_all(answer.as_bytes()).await.unwrap();
        }
    }
}

/// A command: an array of texts (RESP).
async fn read(connection: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let mut line = String::new();
    connection.read_line(&mut line).await.ok().filter(|length| *length > 0)?;
    let count: usize = line.trim_end().strip_prefix('*')?.parse().ok()?;
    let mut command = Vec::new();
    for _ in 0..count {
        line.clear();
        connection.read_line(&mut line).await.ok()?;
        let length: usize = line.trim_end().strip_prefix('$')?.parse().ok()?;
        let mut text = vec![0; length + 2];
        connection.read_exact(&mut text).await.ok()?;
        command.push(String::from_utf8_lossy(&text[..length]).into_owned());
    }
    Some(command)
}

fn replica(domain: &Domain, cache: RedisReplayCache) -> Authenticator {
    Authenticator::builder(FixedBundles(bundle_set(&[domain])))
        .wpt()
        .audience(Audience::targets_of(ORIGIN).unwrap())
        .callers(Authorizer::anybody())
        .replay_cache(Arc::new(cache))
        .build()
        .unwrap()
}

async fn status(replica: &Authenticator, sent: &Sent) -> u16 {
    let fields = sent.fields();
    let answered = replica.authenticate(&sent.request(&fields), None, Timestamp::now()).await;
    answered.map_or_else(|refused: Refusal| refused.answer().status, |_| 200)
}

// R9.
#[tokio::test]
async fn a_proof_is_accepted_once_by_all_replicas_and_not_at_all_without_redis() {
    let (domain, (redis, url, task)) = (Domain::new("a.test"), Redis::start().await);
    let cache = async || RedisReplayCache::connect(&url).await.unwrap();
    let (one, two) = (replica(&domain, cache().await), replica(&domain, cache().await));
    let sent = Sent::get().wpt(&domain.wit("/caller"));
    assert_eq!((status(&one, &sent).await, status(&two, &sent).await), (200, 401));
    let commands = redis.commands.lock().clone();
    let [first, second] = commands.as_slice() else { panic!("{commands:?}") };
    assert_eq!(first[1], second[1]);
    assert!(first[1].starts_with("countersign:proof:") && first[1].len() == "countersign:proof:".len() + 128);
    assert_eq!(first[2..5], ["1", "NX", "PX"]);
    // The rest of its thirty seconds, and thirty for clocks that are behind.
    let life: u64 = first[5].parse().unwrap();
    assert!((55_000..=60_000).contains(&life), "{life} ms");

    let own = replica(&domain, cache().await.prefix("other:"));
    assert_eq!(status(&own, &sent).await, 200);

    task.abort();
    let _ = task.await;
    assert_eq!(status(&one, &Sent::get().wpt(&domain.wit("/caller"))).await, 503);
}

#[tokio::test]
async fn a_redis_that_is_not_there_is_an_error_at_the_start() {
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(RedisReplayCache::connect(&format!("redis://{unused}")).await.is_err());
}
