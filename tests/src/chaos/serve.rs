//! Connections: each of a program's has one of its own to the server.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, RETRY_AFTER};
use hyper::http::response::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot};

use super::body::{Flow, Step};
use super::request::{Asked, Kind};
use super::{Fault, Seen, State, lock};

/// The connection to the server that belongs to one of a program.
type Link = Arc<Mutex<Option<SendRequest<Full<Bytes>>>>>;

/// Closes the connection of the program.
#[derive(Debug)]
struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("closed, as the script says")
    }
}

impl std::error::Error for Closed {}

pub(super) fn run(listener: std::net::TcpListener, state: Arc<State>, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads of the proxy").block_on(async move {
        let listener = TcpListener::from_std(listener).expect("the listener of the proxy");
        tokio::select! {
            never = accept(&listener, &state) => match never {},
            _ = stopped => {}
        }
    });
}

async fn accept(listener: &TcpListener, state: &Arc<State>) -> Infallible {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        drop(stream.set_nodelay(true));
        let state = Arc::clone(state);
        tokio::spawn(async move {
            let link: Link = Arc::default();
            let service = service_fn(|request| answer(Arc::clone(&state), Arc::clone(&link), request));
            // However it ends: the program has closed it, or the script has.
            drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await);
        });
    }
}

async fn answer(state: Arc<State>, link: Link, request: Request<Incoming>) -> Result<Response<Flow>, Closed> {
    let (parts, body) = request.into_parts();
    let asked = Asked::of(&parts);
    let (fault, latency, rate) = state.decide(&asked);
    let mut seen = Seen { asked, fault: fault.clone(), status: None, bytes: 0 };
    let Ok(body) = body.collect().await else { return Err(Closed) };
    let request = Request::from_parts(parts, Full::new(body.to_bytes()));
    tokio::time::sleep(latency).await;
    match &fault {
        Some(Fault::Delay(time)) => tokio::time::sleep(*time).await,
        Some(Fault::Close) => {
            state.note(seen);
            return Err(Closed);
        }
        Some(Fault::Status(status, after)) => {
            seen.status = Some(*status);
            state.note(seen);
            return Ok(refusal(*status, *after));
        }
        Some(Fault::OtherRegion(region)) => {
            seen.status = Some(301);
            state.note(seen);
            let mut response = refusal(301, None);
            response.headers_mut().insert("x-amz-bucket-region", HeaderValue::from_static(region));
            return Ok(response);
        }
        Some(_) | None => {}
    }
    let Some((parts, body)) = ask(&state, &link, request).await else {
        state.note(seen);
        return Err(Closed);
    };
    if fault == Some(Fault::LoseAnswer) {
        state.note(seen);
        return Err(Closed);
    }
    let (parts, body) = remember(&state, &seen.asked, fault.as_ref(), (parts, body));
    let (parts, body) = if fault == Some(Fault::IgnoreCondition) { done(parts, body) } else { (parts, body) };
    seen.status = Some(parts.status.as_u16());
    seen.bytes = u64::try_from(body.len()).unwrap_or(u64::MAX);
    let is_head = seen.asked.kind == Kind::Head;
    state.note(seen);
    Ok(spoil(parts, body, fault.as_ref(), rate, is_head))
}

/// Asks the server, over a new connection where the old one has ended.
async fn ask(state: &State, link: &Link, request: Request<Full<Bytes>>) -> Option<(Parts, Bytes)> {
    let mut link = link.lock().await;
    if link.as_ref().is_none_or(SendRequest::is_closed) {
        let stream = TcpStream::connect(&state.upstream).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        *link = Some(sender);
    }
    let sender = link.as_mut()?;
    sender.ready().await.ok()?;
    let (parts, body) = sender.send_request(request).await.ok()?.into_parts();
    Some((parts, body.collect().await.ok()?.to_bytes()))
}

/// Keeps the first content of each path, and gives it out where that is asked for.
fn remember(state: &State, asked: &Asked, fault: Option<&Fault>, answer: (Parts, Bytes)) -> (Parts, Bytes) {
    if !matches!(asked.kind, Kind::Get | Kind::GetIfChanged) {
        return answer;
    }
    let mut past = lock(&state.past);
    match past.get(&asked.path) {
        // Whatever is asked: who lives in the past knows of no other version.
        Some(first) if fault == Some(&Fault::Stale) => first.clone(),
        None if answer.0.status.is_success() => {
            past.insert(asked.path.clone(), answer.clone());
            answer
        }
        Some(_) | None => answer,
    }
}

/// The answer to a write that was done, in the place of the one that refuses its condition.
fn done(mut parts: Parts, body: Bytes) -> (Parts, Bytes) {
    if parts.status != hyper::StatusCode::PRECONDITION_FAILED {
        return (parts, body);
    }
    parts.status = hyper::StatusCode::OK;
    parts.headers.insert(ETAG, HeaderValue::from_static("\"00000000000000000000000000000001\""));
    (parts, Bytes::new())
}

fn refusal(status: u16, after: Option<u32>) -> Response<Flow> {
    let code = match status {
        503 => "SlowDown",
        429 => "TooManyRequests",
        500 => "InternalError",
        403 => "AccessDenied",
        400 => "ExpiredToken",
        301 => "PermanentRedirect",
        _ => "Refused",
    };
    let text = format!("<Error><Code>{code}</Code><Message>as the script says</Message></Error>");
    let len = u64::try_from(text.len()).unwrap_or_default();
    let mut response = Response::new(Flow::new([Step::Send(text.into())], len));
    *response.status_mut() = hyper::StatusCode::from_u16(status).expect("a status");
    if let Some(after) = after {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(after));
    }
    response
}

/// The answer as the program gets it.
fn spoil(mut parts: Parts, body: Bytes, fault: Option<&Fault>, rate: Option<u64>, is_head: bool) -> Response<Flow> {
    if is_head {
        // A HEAD announces a body that never comes.
        let len = announced(&parts);
        return Response::from_parts(parts, Flow::new([], len));
    }
    let mut body = body;
    match fault {
        Some(Fault::FlipByte) if !body.is_empty() => {
            let mut bytes = body.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            body = bytes.into();
        }
        Some(Fault::ShortBody) => body.truncate(body.len().saturating_sub(body.len() / 3 + 1)),
        Some(Fault::WrongContentRange) => shift(&mut parts),
        Some(Fault::WholeForRange) => {
            if let Some((range, total)) = content_range(&parts) {
                // As long as the whole object, with what is known of it where it belongs.
                let mut whole = vec![0; usize::try_from(total).unwrap_or_default()];
                let start = usize::try_from(range.start).unwrap_or_default();
                whole[start..start + body.len()].copy_from_slice(&body);
                body = whole.into();
            }
            parts.headers.remove(CONTENT_RANGE);
            parts.status = hyper::StatusCode::OK;
        }
        Some(_) | None => {}
    }
    let len = u64::try_from(body.len()).unwrap_or(u64::MAX);
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(len));
    let half = body.len() / 2;
    let steps = match fault {
        Some(Fault::CloseInBody) => vec![Step::Send(body.slice(..half)), Step::Wait(FLUSH), Step::Break],
        Some(Fault::Stall(time)) => {
            vec![Step::Send(body.slice(..half)), Step::Wait(*time), Step::Send(body.slice(half..))]
        }
        Some(_) | None => paced(&body, rate),
    };
    Response::from_parts(parts, Flow::new(steps, len))
}

/// What was sent before a break must have gone out.
const FLUSH: Duration = Duration::from_millis(5);

/// So many pieces a second.
const PIECES: u64 = 50;

fn paced(body: &Bytes, rate: Option<u64>) -> Vec<Step> {
    let Some(rate) = rate else { return vec![Step::Send(body.clone())] };
    let piece = usize::try_from((rate / PIECES).max(1)).unwrap_or(usize::MAX);
    let mut steps = Vec::new();
    for start in (0..body.len()).step_by(piece) {
        steps.push(Step::Send(body.slice(start..body.len().min(start + piece))));
        steps.push(Step::Wait(Duration::from_secs(1) / u32::try_from(PIECES).unwrap_or(1)));
    }
    steps
}

fn announced(parts: &Parts) -> u64 {
    let len = parts.headers.get(CONTENT_LENGTH).and_then(|len| len.to_str().ok());
    len.and_then(|len| len.parse().ok()).unwrap_or_default()
}

/// Says that the body lies one byte further on than it does.
fn shift(parts: &mut Parts) {
    let Some((range, total)) = content_range(parts) else { return };
    let shifted = format!("bytes {}-{}/{total}", range.start + 1, range.end);
    parts.headers.insert(CONTENT_RANGE, shifted.parse().expect("a header"));
}

/// Which bytes of how many an answer says that it holds.
fn content_range(parts: &Parts) -> Option<(Range<u64>, u64)> {
    let text = parts.headers.get(CONTENT_RANGE)?.to_str().ok()?;
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.parse().ok()?..last.parse::<u64>().ok()? + 1, total.parse().ok()?))
}
