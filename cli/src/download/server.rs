//! A small web server on this machine, for tests: one request per connection.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A request as it came.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) method: String,
    pub(super) path: String,
    /// By lower-case names.
    pub(super) headers: BTreeMap<String, String>,
}

/// What to answer.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// Bytes of the body after which the connection is cut.
    pub(super) cut_after: usize,
}

impl Reply {
    pub(super) fn of(status: u16, body: &[u8]) -> Self {
        Self { status, headers: Vec::new(), body: body.to_vec(), cut_after: usize::MAX }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn cut_after(self, n_bytes: usize) -> Self {
        Self { cut_after: n_bytes, ..self }
    }

    /// The whole of `body`, or the part that the request asks for, as a server of files does.
    pub(super) fn part_of(body: &[u8], request: &Heard) -> Self {
        let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
        let Some(start) = range.and_then(|range| range.strip_suffix('-')) else {
            return Self::of(200, body);
        };
        let start: usize = start.parse().unwrap();
        let n_bytes = body.len();
        if start >= n_bytes {
            return Self::of(416, b"");
        }
        let range = format!("bytes {start}-{}/{n_bytes}", n_bytes - 1);
        Self::of(206, &body[start..]).with("Content-Range", range)
    }
}

/// A server that runs until it is dropped.
pub(super) struct Server {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    ends: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&Heard) -> Reply + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (noted, ended) = (Arc::clone(&heard), Arc::clone(&ends));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::SeqCst) {
                    return;
                }
                let mut stream = stream.unwrap();
                let Some(request) = hear(&stream) else { continue };
                let reply = answer(&request);
                noted.lock().unwrap().push(request.clone());
                say(&mut stream, &request, &reply);
            }
        });
        Self { address, heard, ends, thread: Some(thread) }
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    pub(super) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::SeqCst);
        // Wakes the thread, which waits for a connection.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            // A failure in it shows as a missing answer in the test.
            drop(thread.join());
        }
    }
}

fn hear(stream: &TcpStream) -> Option<Heard> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let mut words = first.split(' ').map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Some(Heard { method, path, headers })
}

fn say(stream: &mut TcpStream, request: &Heard, reply: &Reply) {
    let mut lines = vec![format!("HTTP/1.1 {} Answer", reply.status)];
    lines.extend(reply.headers.iter().map(|(name, value)| format!("{name}: {value}")));
    lines.push(format!("Content-Length: {}", reply.body.len()));
    let head = lines.join("\r\n") + "\r\nConnection: close\r\n\r\n";
    let n_bytes = if request.method == "HEAD" { 0 } else { reply.body.len().min(reply.cut_after) };
    // A client may leave before the end.
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(&reply.body[..n_bytes]);
}
