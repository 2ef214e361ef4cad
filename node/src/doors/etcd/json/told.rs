//! What is answered by gRPC, told in JSON: one object, or a line for each message
//! of a stream.
//!
//! Elements of a list are decoded one by one: a tree of the whole would hold many
//! times what a range of small keys does. What is written takes the room of the
//! answer as it grows, because JSON is longer than what it tells of.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use actors::client::Room;
use axum::body::Body;
use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body as _, Frame};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use serde_json::json;
use tonic::Status;

use super::{broken, http_status, refused, too_many_requests};
use crate::doors::etcd::bodies::{PIECE_BYTES, PREFIX_BYTES, Pieces, body_of};

/// As etcd's gateway: names as in the protocol buffers.
const OPTIONS: SerializeOptions = SerializeOptions::new().use_proto_field_name(true);

/// The body of an answer.
pub(super) struct Told {
    body: Body,
    output: MessageDescriptor,
    come: BytesMut,
    over: bool,
}

impl Told {
    pub(super) fn new(body: Body, output: MessageDescriptor) -> Self {
        Self { body, output, come: BytesMut::new(), over: false }
    }

    /// The one message of it, within its room if it has one.
    pub(super) async fn whole(mut self, room: Option<&Room>) -> Result<Vec<u8>, Status> {
        let message = poll_fn(|context| self.poll_message(context)).await?;
        let message = message.ok_or_else(|| broken("there is none"))?;
        // What refuses it stands behind it.
        while poll_fn(|context| self.poll_message(context)).await?.is_some() {}
        text(&self.output, &message, room)
    }

    /// A line for each message.
    pub(super) fn lines(mut self) -> impl Pieces {
        body_of(move |context| {
            let message = ready!(self.poll_message(context)).transpose();
            Poll::Ready(message.map(|message| Ok(Frame::data(self.line(message)))))
        })
    }

    /// The next message; none at the end.
    fn poll_message(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        loop {
            if let Some(message) = self.split() {
                return Poll::Ready(Ok(Some(message)));
            }
            if self.over {
                return Poll::Ready(Ok(None));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if self.come.is_empty() => self.come = data.into(),
                    Ok(data) => self.come.extend_from_slice(&data),
                    Err(frame) => {
                        self.over = true;
                        let trailers = frame.into_trailers().unwrap_or_default();
                        if let Some(status) = refused(&trailers) {
                            return Poll::Ready(Err(status));
                        }
                    }
                },
                Some(Err(error)) => {
                    self.over = true;
                    return Poll::Ready(Err(Status::from_error(error.into())));
                }
                None => self.over = true,
            }
        }
    }

    fn split(&mut self) -> Option<Bytes> {
        let (_, mut length) = self.come.get(..PREFIX_BYTES)?.split_first()?;
        let length = usize::try_from(length.try_get_u32().ok()?).ok()?;
        if self.come.len() < PREFIX_BYTES + length {
            return None;
        }
        self.come.advance(PREFIX_BYTES);
        Some(self.come.split_to(length).freeze())
    }

    /// One line of a stream.
    fn line(&self, message: Result<Bytes, Status>) -> Bytes {
        let told = message.and_then(|message| text(&self.output, &message, None));
        let mut line = match told {
            Ok(told) => [&b"{\"result\":"[..], &told, b"}"].concat(),
            Err(status) => error(&status).into_bytes(),
        };
        line.push(b'\n');
        line.into()
    }
}

/// The end of a stream that failed.
fn error(status: &Status) -> String {
    let http = http_status(status.code());
    let error = json!({
        "grpc_code": i32::from(status.code()),
        "http_code": http.as_u16(),
        "message": status.message(),
        "http_status": http.canonical_reason().unwrap_or_default(),
    });
    json!({ "error": error }).to_string()
}

/// A message as JSON.
fn text(
    output: &MessageDescriptor,
    message: &[u8],
    room: Option<&Room>,
) -> Result<Vec<u8>, Status> {
    let (rest, lists) = split_lists(output, message).map_err(broken)?;
    let mut text = Vec::new();
    write(output, &rest, &mut text)?;
    for (number, elements) in lists {
        let Some(field) = output.get_field(number) else { continue };
        let Kind::Message(element) = field.kind() else { continue };
        text.pop();
        let comma = if text.len() > 1 { "," } else { "" };
        text.extend_from_slice(format!("{comma}\"{}\":[", field.name()).as_bytes());
        for (at, bytes) in elements.into_iter().enumerate() {
            if at > 0 {
                text.push(b',');
            }
            write(&element, bytes, &mut text)?;
            if text.len() > PIECE_BYTES && room.is_some_and(|room| !grown(room, text.len())) {
                return Err(too_many_requests());
            }
        }
        text.extend_from_slice(b"]}");
    }
    Ok(text)
}

fn grown(room: &Room, bytes: usize) -> bool {
    room.taken() >= bytes || room.set(bytes)
}

fn write(output: &MessageDescriptor, bytes: &[u8], text: &mut Vec<u8>) -> Result<(), Status> {
    let message = DynamicMessage::decode(output.clone(), bytes).map_err(broken)?;
    message.serialize_with_options(&mut serde_json::Serializer::new(text), &OPTIONS).map_err(broken)
}

/// Elements of a message's lists of messages by the number of the field, and what is
/// left without them.
type Split<'a> = (Vec<u8>, BTreeMap<u32, Vec<&'a [u8]>>);

fn split_lists<'a>(
    output: &MessageDescriptor,
    message: &'a [u8],
) -> Result<Split<'a>, prost::DecodeError> {
    let (mut rest, mut lists) = (Vec::new(), BTreeMap::<u32, Vec<&[u8]>>::new());
    let mut left = message;
    while !left.is_empty() {
        let begin = left;
        let (number, kind) = decode_key(&mut left)?;
        let is_list = output
            .get_field(number)
            .is_some_and(|field| field.is_list() && matches!(field.kind(), Kind::Message(_)));
        let inside = left;
        skip_field(kind, number, &mut left, DecodeContext::default())?;
        let end = inside.len() - left.len();
        if let (true, WireType::LengthDelimited, Some(mut inside)) =
            (is_list, kind, inside.get(..end))
        {
            decode_varint(&mut inside)?;
            lists.entry(number).or_default().push(inside);
        } else if let Some(field) = begin.get(..begin.len() - left.len()) {
            rest.extend_from_slice(field);
        }
    }
    Ok((rest, lists))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message;
    use prost_reflect::DescriptorPool;
    use tokio::sync::Semaphore;
    use tonic::Code;

    use super::*;
    use crate::doors::etcd::{
        json::DESCRIPTORS,
        proto::{etcdserverpb::RangeResponse, mvccpb::KeyValue},
    };

    fn range(keys: usize) -> (MessageDescriptor, Vec<u8>) {
        let pool = DescriptorPool::decode(DESCRIPTORS).unwrap();
        let kv = |at: usize| KeyValue {
            key: format!("{at:06}").into(),
            mod_revision: 7,
            ..KeyValue::default()
        };
        let kvs: Vec<_> = (0..keys).map(kv).collect();
        let count = i64::try_from(keys).unwrap();
        let response = RangeResponse { kvs, count, ..RangeResponse::default() };
        let output = pool.get_message_by_name("etcdserverpb.RangeResponse").unwrap();
        (output, response.encode_to_vec())
    }

    #[test]
    fn lists_are_told_element_by_element_and_the_rest_beside_them() {
        let (output, message) = range(2);
        let told: serde_json::Value =
            serde_json::from_slice(&text(&output, &message, None).unwrap()).unwrap();
        let kv = |key: &str| json!({ "key": key, "mod_revision": "7" });
        let kvs = [kv("MDAwMDAw"), kv("MDAwMDAx")];
        assert_eq!(told, json!({ "kvs": kvs, "count": "2" }));
        assert_eq!(text(&output, &[], None).unwrap(), b"{}");
    }

    #[test]
    fn what_is_longer_in_json_than_there_is_room_for_is_refused() {
        let (output, message) = range(10_000);
        let bound = Arc::new(Semaphore::new(message.len() * 2));
        let room = Room::of(bound.clone());
        assert!(room.set(message.len()));
        let refused = text(&output, &message, Some(&room)).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        bound.add_permits(message.len() * 10);
        let told = text(&output, &message, Some(&room)).unwrap();
        assert!(room.taken() >= told.len() - 100, "{} of {}", room.taken(), told.len());
    }
}
