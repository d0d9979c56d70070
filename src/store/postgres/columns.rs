//! A batch as array parameters of the lane's statement, encoded directly into the message.

use std::{collections::BTreeMap, error::Error};

use bytes::BytesMut;
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use postgres_types::{IsNull, Kind, ToSql, Type};
use time::OffsetDateTime;

use super::{Batch, Judgement};
use crate::{event::NewEvent, store::Counters};

type ToSqlResult = Result<IsNull, Box<dyn Error + Sync + Send>>;

/// The new events of a batch by key, each with its number by arrival, from 0.
pub(super) struct Rows<'a>(Vec<Row<'a>>);

#[derive(Debug)]
pub(super) struct Row<'a> {
    number: i64,
    event: &'a NewEvent,
}

impl<'a> Rows<'a> {
    pub(super) fn of(batch: &'a Batch, judgement: &Judgement<'_>) -> Self {
        let new: Vec<usize> = judgement.new_events().collect();
        let mut numbers = vec![0; batch.events.len()];
        new.iter().for_each(|&index| numbers[index] = 1);
        // The number of a new event is the number of new ones before it.
        let mut before = 0;
        for number in &mut numbers {
            before += std::mem::replace(number, before);
        }
        let row = |index: usize| Row { number: numbers[index], event: &batch.events[index] };
        Self(new.into_iter().map(row).collect())
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    fn column<T>(&self, value: fn(&Row<'a>) -> T) -> Column<'_, 'a, T> {
        Column { rows: &self.0, value }
    }

    pub(super) fn topics(&self) -> Column<'_, 'a, &'a str> {
        self.column(|row| &row.event.key.topic)
    }

    pub(super) fn event_ids(&self) -> Column<'_, 'a, &'a str> {
        self.column(|row| &row.event.key.event_id)
    }

    pub(super) fn numbers(&self) -> Column<'_, 'a, i64> {
        self.column(|row| row.number)
    }

    pub(super) fn timestamps(&self) -> Column<'_, 'a, Option<OffsetDateTime>> {
        self.column(|row| row.event.timestamp.map(Into::into))
    }

    pub(super) fn sources(&self) -> Column<'_, 'a, &'a str> {
        self.column(|row| &row.event.source)
    }

    pub(super) fn payloads(&self) -> Column<'_, 'a, JsonText<'a>> {
        self.column(|row| JsonText(row.event.payload.as_str()))
    }
}

/// One column of all rows, as an array.
#[derive(Debug)]
pub(super) struct Column<'r, 'a, T> {
    rows: &'r [Row<'a>],
    value: fn(&Row<'a>) -> T,
}

impl<'a, T: ToSql> ToSql for Column<'_, 'a, T> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> ToSqlResult {
        let Kind::Array(member) = ty.kind() else { return Err("not an array".into()) };
        let dimension = ArrayDimension { len: self.rows.len().try_into()?, lower_bound: 1 };
        let write = |row: &Row<'a>, out: &mut BytesMut| {
            Ok(match (self.value)(row).to_sql(member, out)? {
                IsNull::No => postgres_protocol::IsNull::No,
                IsNull::Yes => postgres_protocol::IsNull::Yes,
            })
        };
        array_to_sql(Some(dimension), member.oid(), self.rows, write, out)?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(member) if T::accepts(member))
    }

    postgres_types::to_sql_checked!();
}

/// A payload for a `json` column, whose binary format is its text.
#[derive(Debug)]
pub struct JsonText<'a>(pub &'a str);

impl ToSql for JsonText<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> ToSqlResult {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    postgres_types::accepts!(JSON);
    postgres_types::to_sql_checked!();
}

/// Increments of the counters, by topic.
pub(super) struct Tallies<'a> {
    pub(super) topics: Vec<&'a str>,
    pub(super) received: Vec<i64>,
    pub(super) unique_processed: Vec<i64>,
    pub(super) conflicts: Vec<i64>,
}

impl<'a> Tallies<'a> {
    pub(super) fn of(counters: BTreeMap<&'a str, Counters>) -> Self {
        Self {
            received: counters.values().map(|topic| topic.received).collect(),
            unique_processed: counters.values().map(|topic| topic.unique_processed).collect(),
            conflicts: counters.values().map(|topic| topic.conflicts).collect(),
            topics: counters.into_keys().collect(),
        }
    }
}
