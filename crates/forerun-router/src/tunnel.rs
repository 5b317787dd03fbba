//! A connection that has become a WebSocket: bytes both ways until either side ends.

use crate::body::ReplyBody;
use crate::fault::Fault;
use crate::headers;
use crate::io::Client;
use crate::server::Phase;
use crate::stats::Outcome;
use crate::visit::Visit;
use bytes::Bytes;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::sync::watch;

/// Both sides have agreed; the connections only have to be handed over.
const HANDOVER_MAX: Duration = Duration::from_secs(10);

/// The answer for the client; the tunnel runs by itself and keeps the request in flight while it does.
pub(crate) fn open(
    mut answer: Response<Incoming>,
    asked: Option<OnUpgrade>,
    visit: Visit,
    client: Client,
    phase: watch::Receiver<Phase>,
) -> Result<Response<ReplyBody>, Fault> {
    let Some(asked) = asked else {
        let sentence = "the instance switched protocols without being asked to";
        return Err(visit.refuse(Fault::upstream(StatusCode::BAD_GATEWAY, Fault::NONSENSE, sentence)));
    };
    let instance = hyper::upgrade::on(&mut answer);
    tokio::spawn(run(asked, instance, visit, client, phase));
    let (mut parts, _) = answer.into_parts();
    headers::strip_hop_by_hop(&mut parts.headers);
    headers::mark_websocket(&mut parts.headers);
    Ok(Response::from_parts(parts, ReplyBody::own(Bytes::new())))
}

async fn run(
    asked: OnUpgrade,
    instance: OnUpgrade,
    mut visit: Visit,
    client: Client,
    mut phase: watch::Receiver<Phase>,
) {
    let handover = async { tokio::try_join!(asked, instance) };
    let (from_client, from_instance) = match tokio::time::timeout(HANDOVER_MAX, handover).await {
        Ok(Ok(sides)) => sides,
        // Whichever side is missing has closed its connection.
        Ok(Err(_)) | Err(_) => return,
    };
    visit.settle(Outcome::Answered, None);
    let (mut from_client, mut from_instance) = (TokioIo::new(from_client), TokioIo::new(from_instance));
    tokio::select! {
        copied = tokio::io::copy_bidirectional(&mut from_client, &mut from_instance) => {
            if let Ok((up, down)) = copied {
                visit.progress.add_bytes(up + down);
            }
        }
        // The drain time is over: both connections end here.
        _ = phase.wait_for(|phase| *phase == Phase::Abort) => {}
    }
    drop(client);
}
