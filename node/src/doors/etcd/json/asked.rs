//! What is asked in JSON, as gRPC has it: the body of a request, one object after
//! the other, each a framed message once it has come whole.
//!
//! Bytes take their room as they come, as all requests do, and are looked at once,
//! however slowly they come. A method that is asked once takes the first object; a
//! body without any is the request in which all is left out.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use actors::client::Room;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body::{Body as _, Frame};
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde_json::Value;
use tonic::Status;

use super::{malformed, methods::Method, too_many_requests};
use crate::doors::etcd::{
    bodies::{Due, Piece, body_of},
    faults::EtcdFault,
    frames::put,
};

/// The body of a request by gRPC, of one in JSON of at most so many bytes an object.
pub(super) fn asked(body: Body, method: &Method, most: usize, room: Arc<Room>) -> Body {
    let (input, once) = (method.input.clone(), !method.asked_often);
    let (objects, due, state) = (Objects::default(), Due::default(), State::Nothing);
    let mut asked = Asked { body, input, objects, most, room, due, once, state };
    Body::new(body_of(move |context| asked.poll_frame(context)))
}

struct Asked {
    body: Body,
    input: MessageDescriptor,
    objects: Objects,
    /// Bytes of one object.
    most: usize,
    room: Arc<Room>,
    due: Due,
    once: bool,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// No request was found yet.
    Nothing,
    /// There was one, and there may be more.
    Some,
    /// No more is looked for.
    Over,
}

impl Asked {
    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let next = ready!(self.poll_next(context));
        if next.is_err() {
            self.state = State::Over;
        }
        Poll::Ready(next.map(|message| message.map(Frame::data)).transpose())
    }

    fn take(&mut self, data: &[u8]) -> Result<(), Status> {
        if self.objects.bytes.len() + data.len() > self.most {
            return Err(EtcdFault::RequestTooLarge.into());
        }
        self.objects.bytes.extend_from_slice(data);
        if self.room.set(self.objects.bytes.len()) { Ok(()) } else { Err(too_many_requests()) }
    }

    /// The next message, if its object has come.
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let Some(object) = self.objects.next()? else { return Ok(None) };
        let message = message(&self.input, &object)?;
        self.state = if self.once { State::Over } else { State::Some };
        // Until more is asked for, when this one has been decoded.
        let held = self.objects.bytes.len() + message.len();
        if self.room.set(held) { Ok(Some(message)) } else { Err(too_many_requests()) }
    }

    /// What the end of the body means.
    fn end(&mut self) -> Result<Option<Bytes>, Status> {
        let nothing = self.state == State::Nothing;
        self.state = State::Over;
        if !self.objects.is_empty() {
            return Err(malformed("unexpected EOF"));
        }
        Ok((nothing && self.once).then(|| framed(&DynamicMessage::new(self.input.clone()))))
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Status>> {
        while self.state != State::Over {
            if let Some(message) = self.next()? {
                return Poll::Ready(Ok(Some(message)));
            }
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
                self.due.set(!self.objects.is_empty());
                return self.due.poll(context).map(|fault| Err(fault.into()));
            };
            match frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.take(data)?;
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(malformed(error))),
                None => return Poll::Ready(self.end()),
            }
        }
        Poll::Ready(Ok(None))
    }
}

/// One object as a framed message.
fn message(input: &MessageDescriptor, object: &[u8]) -> Result<Bytes, Status> {
    let mut json = serde_json::Deserializer::from_slice(object);
    if let Ok(message) = DynamicMessage::deserialize(input.clone(), &mut json) {
        return Ok(framed(&message));
    }
    // etcd passes by fields that it does not know; the library would then pass by
    // names of enums too, and compare with another order than was meant.
    let mut object: Value = serde_json::from_slice(object).map_err(malformed)?;
    keep_known(input, &mut object);
    let message = DynamicMessage::deserialize(input.clone(), object).map_err(malformed)?;
    Ok(framed(&message))
}

/// Drops the fields that no message of this kind has.
fn keep_known(input: &MessageDescriptor, value: &mut Value) {
    if let Value::Array(elements) = value {
        for element in elements {
            keep_known(input, element);
        }
        return;
    }
    let Value::Object(fields) = value else { return };
    fields.retain(|name, value| {
        let field = input.get_field_by_json_name(name).or_else(|| input.get_field_by_name(name));
        if let Some(Kind::Message(inner)) = field.as_ref().map(FieldDescriptor::kind) {
            keep_known(&inner, value);
        }
        field.is_some()
    });
}

fn framed(message: &DynamicMessage) -> Bytes {
    let mut framed = BytesMut::new();
    put(message, &mut framed);
    framed.freeze()
}

/// Objects of JSON in bytes that come little by little.
#[derive(Debug, Default)]
struct Objects {
    bytes: Vec<u8>,
    /// Bytes that were looked at.
    seen: usize,
    /// Objects and lists that are open there.
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Objects {
    /// Whether nothing but space is left.
    fn is_empty(&self) -> bool {
        self.bytes.iter().all(u8::is_ascii_whitespace)
    }

    /// The next whole object; the parser judges what is inside.
    fn next(&mut self) -> Result<Option<Vec<u8>>, Status> {
        while let Some(byte) = self.bytes.get(self.seen).copied() {
            self.seen += 1;
            if self.depth == 0 && byte != b'{' {
                if byte.is_ascii_whitespace() {
                    continue;
                }
                return Err(malformed("a request is an object of JSON"));
            }
            if self.look(byte) {
                let rest = self.bytes.split_off(self.seen);
                self.seen = 0;
                return Ok(Some(std::mem::replace(&mut self.bytes, rest)));
            }
        }
        Ok(None)
    }

    /// Whether an object ends with this byte.
    fn look(&mut self, byte: u8) -> bool {
        if self.in_text {
            self.in_text = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return false;
        }
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth -= 1;
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_found_however_they_come() {
        let text = br#" {"a":"}\"{","b":[{},[]]}
            {} {"c":"\\"}"#;
        for step in [1, 2, 3, 7, 100] {
            let (mut objects, mut found) = (Objects::default(), Vec::new());
            for bytes in text.chunks(step) {
                objects.bytes.extend_from_slice(bytes);
                while let Some(object) = objects.next().unwrap() {
                    found.push(String::from_utf8(object).unwrap().trim().to_owned());
                }
            }
            assert_eq!(found, [r#"{"a":"}\"{","b":[{},[]]}"#, "{}", r#"{"c":"\\"}"#]);
            assert!(objects.is_empty());
        }
        for none in ["[]", "7", "\"{\"", "}", " ]"] {
            let mut objects = Objects { bytes: none.into(), ..Objects::default() };
            assert!(objects.next().is_err(), "{none}");
        }
    }
}
